"""Models of a hub: for members only, safe weights only, downloaded once, and without the operator's key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.llm import cache
from node.workloads.llm import hub as llm_hub
from node.workloads.llm.models import ModelUnavailable
from tests.language_models import tiny_gguf, tiny_llama
from tests.model_hub import COMMIT, serve

ASK = {"prompt": "w1 w2 w3", "max_tokens": 10}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_llama(folder / "tiny")
    (folder / "gguf").mkdir()
    tiny_gguf(folder / "tiny", folder / "gguf" / "tiny.Q4_K_M.gguf")
    (folder / "gguf" / "tiny.Q2_K.gguf").write_bytes(b"smaller, and not taken")
    return folder


@pytest.fixture
def hub(models, monkeypatch, tmp_path):
    folders = {"lab/tiny": models / "tiny", "lab/gguf": models / "gguf"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_the_operators_own")
    monkeypatch.setattr(llm_hub, "_fetched", {})
    with serve(folders) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made
    cache.forget()


@pytest.fixture
def run(models, tmp_path, monkeypatch):
    task = tmp_path / "task"
    task.mkdir()
    monkeypatch.chdir(task)

    def call(closed: bool = True, **payload):
        context = Context(1, task, memory_mb=4096, grants={"models": (str(models),)})
        return load("llm_inference")(validate("llm_inference", ASK | payload, closed), context)

    return call


def held(tmp_path: Path) -> list[str]:
    return sorted(entry.name for entry in (tmp_path / "cache" / "queztl" / "hub").iterdir() if entry.is_dir())


def test_a_model_is_fetched_once_and_answers_as_the_local_one(hub, run, tmp_path):
    local, fetched = run(model="tiny"), run(hub="lab/tiny")
    assert fetched["text"] == local["text"] and fetched["weights"] == "trained"
    assert (fetched["model"], fetched["backend"]) == ("lab/tiny", "torch")
    files = {path.rsplit("/", 1)[-1] for path in hub.asked if "/resolve/" in path}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= files
    assert not any("with a key" in path for path in hub.asked), "a peer must not use the operator's key"
    hub.asked.clear()
    assert run(hub="lab/tiny")["text"] == local["text"] and not hub.asked, "this worker has it loaded"
    llm_hub._fetched.clear()
    cache.forget()
    assert run(hub=f"lab/tiny@{COMMIT}")["text"] == local["text"]
    assert hub.asked and not any("/resolve/" in path for path in hub.asked), "another worker finds it on the disk"
    assert held(tmp_path) == [f"lab--tiny@{COMMIT}"]


def test_of_several_gguf_files_the_usual_one_is_taken(hub, run, tmp_path):
    result = run(hub="lab/gguf")
    assert result["backend"] == "llama.cpp" and result["completion_tokens"] == 10
    (folder,) = (tmp_path / "cache" / "queztl" / "hub").glob("*@*[0-9]")
    assert [path.name for path in folder.iterdir()] == ["tiny.Q4_K_M.gguf"]


def test_an_open_mesh_fetches_nothing(hub, run):
    with pytest.raises(BadInput) as caught:
        run(closed=False, hub="lab/tiny")
    (fault,) = caught.value.faults
    assert fault.field == "payload.hub" and "for its members only: this mesh has no key" in fault.problem
    assert not hub.asked


def test_an_absent_or_gated_model_is_an_input_fault(hub, run):
    with pytest.raises(InputFault, match=r"payload\.hub names lab/none@main, which the hub does not have"):
        run(hub="lab/none")
    with pytest.raises(InputFault, match="names lab/tiny@v9, which the hub does not have"):
        run(hub="lab/tiny@v9")
    hub.gated = True
    with pytest.raises(InputFault, match="whose makers grant access on request only"):
        run(hub="lab/tiny")


def test_pickled_weights_and_code_are_not_even_fetched(hub, run, models, tmp_path):
    pickled = shutil.copytree(models / "tiny", tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    hub.folders["lab/pickled"] = pickled
    with pytest.raises(
        InputFault, match="no weights as safetensors or as a single GGUF file; other formats could run code"
    ):
        run(hub="lab/pickled")
    coded = hub.folders["lab/coded"] = shutil.copytree(models / "tiny", tmp_path / "coded")
    (coded / "modeling.py").write_text("raise SystemExit('it ran')")
    (coded / "pytorch_model.bin").write_bytes(b"pickled, beside the safe ones")
    assert run(hub="lab/coded")["completion_tokens"] == 10
    assert not [path for path in hub.asked if "/resolve/" in path and path.endswith((".py", ".bin"))]


def test_a_hub_that_can_not_be_reached_is_no_fault_of_the_payload(hub, run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelUnavailable, match="it can't get lab/tiny from the hub: ") as caught:
        run(hub="lab/tiny")
    assert "\n" not in str(caught.value)


def test_an_interrupted_fetch_leaves_no_model_and_is_continued(hub, run, tmp_path):
    hub.lost = "model.safetensors"
    with pytest.raises(ModelUnavailable, match="it can't get lab/tiny from the hub: "):
        run(hub="lab/tiny")
    assert held(tmp_path) == [f"lab--tiny@{COMMIT}.part"]
    hub.lost = ""
    assert run(hub="lab/tiny")["completion_tokens"] == 10
    assert held(tmp_path) == [f"lab--tiny@{COMMIT}"]
