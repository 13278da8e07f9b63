"""llm_inference: broken and hostile model files, names with paths, and models that don't fit into memory."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import pytest

from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.probes.models import labels
from node.workloads.llm import cache, models
from tests.language_models import tiny_llama


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def listed(tiny, tmp_path):
    """A directory that the operator listed, with one good model whose files a test may spoil."""
    shutil.copytree(tiny, tmp_path / "listed" / "tiny")
    return tmp_path / "listed"


@pytest.fixture
def run(listed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield lambda memory_mb=4096, **payload: load("llm_inference")(
        validate("llm_inference", {"prompt": "w1", "max_tokens": 2, **payload}),
        Context(1, tmp_path, memory_mb=memory_mb, grants={"models": (str(listed),)}),
    )
    cache.forget()


def spoil(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


# --- GGUF ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (0, "is not a readable GGUF file"),
        (3, "is not a readable GGUF file"),
        (1000, "it is truncated"),
        (4_000_000, "damaged, incomplete"),
    ],
)
def test_a_gguf_file_that_was_cut_off(run, listed, part, problem):
    """The file is cut in its header or in its weights, where only llama.cpp itself can detect it."""
    with open(models.held(())["SmolLM2-135M-Instruct"].path, "rb") as file:
        (listed / "cut.gguf").write_bytes(file.read(part))
    with pytest.raises(InputFault, match=rf"payload\.model .*{problem}"):
        run(model="cut", backend="llama.cpp")
    # The worker still works.
    assert run(model="tiny")["completion_tokens"] == 2


def test_a_gguf_file_that_is_something_else(run, listed):
    (listed / "text.gguf").write_text("hello " * 100)
    (listed / "noise.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 40)
    for name in ("text", "noise", "noise.gguf"):
        with pytest.raises(InputFault, match=r"payload\.model is not a readable GGUF file"):
            run(model=name)


# --- folders ---------------------------------------------------------------------------------------


def test_pickled_weights_are_refused(run, listed):
    (listed / "tiny" / "model.safetensors").rename(listed / "tiny" / "pytorch_model.bin")
    with pytest.raises(InputFault, match=r"payload\.model has pickled weights \(pytorch_model\.bin\)"):
        run(model="tiny")
    (listed / "tiny" / "pytorch_model.bin").unlink()
    with pytest.raises(InputFault, match="has no weights"):
        run(model="tiny")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_not_run(run, listed, tmp_path, name):
    (listed / "tiny" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    spoil(listed / "tiny" / name, auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(InputFault, match=rf"contains code \({name} has auto_map\), which is not run"):
        run(model="tiny")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_safetensors_that_were_cut_off(run, listed, size):
    file = listed / "tiny" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputFault, match=r"damaged safetensors file \(model\.safetensors\)"):
        run(model="tiny")


def test_missing_or_misshapen_weights_are_not_replaced_by_random_ones(run, listed):
    spoil(listed / "tiny" / "config.json", num_hidden_layers=3)
    with pytest.raises(InputFault, match=r"lacks 9 of the weights .* model\.layers\.2\."):
        run(model="tiny")
    spoil(listed / "tiny" / "config.json", num_hidden_layers=2, hidden_size=16)
    with pytest.raises(InputFault, match=r"payload\.model "):
        run(model="tiny")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"model_type": "no-such"}', '{"model_type": 7}'])
def test_a_config_that_makes_no_sense(run, listed, text):
    (listed / "tiny" / "config.json").write_text(text)
    with pytest.raises(InputFault, match=r"payload\.model ") as caught:
        run(model="tiny")
    assert "\n" not in str(caught.value)


BROKEN_BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}


@pytest.mark.parametrize("text", ["{}", "", json.dumps({"version": "1.0", "added_tokens": [], "model": BROKEN_BPE})])
def test_a_tokenizer_that_makes_no_sense(run, listed, text):
    (listed / "tiny" / "tokenizer.json").write_text(text)
    with pytest.raises(InputFault, match=r"payload\.model can't be loaded by transformers"):
        run(model="tiny")


# --- links -----------------------------------------------------------------------------------------


def test_links_out_of_the_directory_are_not_followed(run, listed, tmp_path, tiny):
    (listed / "folder").symlink_to(tiny)
    (listed / "file.gguf").symlink_to(models.held(())["SmolLM2-135M-Instruct"].path)
    (listed / "inside").symlink_to(listed / "tiny")
    assert set(labels((str(listed),))) == {"model.tiny", "model.inside"}
    for name in ("folder", "file"):
        with pytest.raises(models.ModelUnavailable, match=f"has no model '{name}'"):
            run(model=name)
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (listed / "tiny" / "special_tokens_map.json").symlink_to(secret)
    with pytest.raises(InputFault, match=r"outside its folder \(special_tokens_map\.json\), which is not followed"):
        run(model="tiny")


# --- sizes -----------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_refused_before_anything_is_allocated(run, monkeypatch):
    def made(*_):
        raise AssertionError("it was built")

    monkeypatch.setattr("node.workloads.llm.pytorch._load", made)
    monkeypatch.setattr("node.workloads.llm.pytorch._no_gpu_here", lambda on_cpu: True)
    monkeypatch.setattr("node.workloads.llm.llama_cpp.LlamaModel", made)
    with pytest.raises(InputFault, match=r'\.model needs about \d{5} MB, .* 64 MB.* requires {"memory_mb": \d'):
        run(memory_mb=64, model="7B")
    with pytest.raises(InputFault, match=r"payload\.model needs about \d+ MB, and this task has 64 MB"):
        run(memory_mb=64)
    # The task has no limit, and the model needs more than the machine has.
    memory = SimpleNamespace(available=1 << 20, total=4 << 30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(models.ModelUnavailable, match=r"needs about \d+ MB, and the machine has 1 MB free"):
        run(memory_mb=0, model="70B")


def test_a_size_that_does_not_fit_is_replaced_by_the_largest_installed_model_that_does(run, monkeypatch):
    """The result has the requested model, the one that ran and the reason; a name means one model, never replaced."""
    monkeypatch.setattr("node.workloads.llm.pytorch._no_gpu_here", lambda on_cpu: True)
    result = run(model="7B", prompt=None)
    assert result["requested_model"] == "7B" and result["weights"] == "trained" and result["text"]
    assert re.search(r"needs about \d{5} MB, and this task has 4096 MB: .*memory_mb", result["why_this_model"])
    assert result["model"] == models.alternatives("7B", ())[0].name
    assert "requested_model" not in run()
    with pytest.raises(models.ModelUnavailable):
        run(model="Mistral-7B")


def test_without_any_installed_model_the_largest_size_that_fits_runs(run, monkeypatch):
    monkeypatch.setattr("node.workloads.llm.pytorch._no_gpu_here", lambda on_cpu: True)
    monkeypatch.setattr("node.workloads.llm.pytorch.cpu_has_bf16", lambda: False)
    monkeypatch.setattr("node.workloads.llm.models.held", lambda folders: {})
    built = []

    def build(model, on_cpu, threads):
        built.append(model.name)
        raise models.ModelUnavailable("built enough")

    monkeypatch.setattr("node.workloads.llm.pytorch._load", build)
    with pytest.raises(InputFault, match="needs about"):
        run(memory_mb=3072, model="7B")
    assert built == ["360M", "135M"], "1B needs 5 GB in float32"
