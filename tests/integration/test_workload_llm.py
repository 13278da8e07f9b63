"""llm_inference: the text of both backends compared with the libraries, batches, stop strings, seeds, caching."""

from __future__ import annotations

import importlib.util

import pytest

from mesh.kinds.table import KINDS, validate
from node.executor.context import Context, InputFault, load
from node.executor.worker_main import error_of
from node.probes.packages import probe_packages
from node.workloads.llm import cache
from node.workloads.llm import models as llm_models
from tests.language_models import tiny_gguf, tiny_llama

START = {"prompt": "Once upon a time", "raw": True, "max_tokens": 12}
TINY = {"model": "tiny", "prompt": "w1 w2 w3", "max_tokens": 10}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_gguf(tiny_llama(folder / "tiny"), folder / "tiny-file.gguf")
    tiny_llama(folder / "tiny-chat", chat=True, tied=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def models_are_freed():
    yield
    cache.forget()


@pytest.fixture
def run(models, tmp_path, monkeypatch):
    # A worker's working directory is the task's folder.
    monkeypatch.chdir(tmp_path)

    def call(payload, **more):
        context = Context(1, tmp_path, memory_mb=4096, grants={"models": (str(models),)}, **more)
        return load("llm_inference")(validate("llm_inference", payload), context)

    return call


# --- llama.cpp -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    """`direct(prompt, **options)`: the text that xllamacpp generates when called directly."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(llm_models.held(())["SmolLM2-135M-Instruct"].path)
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.verbosity = 512, 1, 0, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("direct"))
        params.hostnames = ["direct.sock"]
        server = xllamacpp.Server(params)

    def ask(prompt, **options):
        answers = []
        server.handle_completions({"prompt": prompt, "cache_prompt": False, **options}, answers.append)
        return answers[0]["choices"][0]["text"]

    return ask


def test_llama_generates_what_the_library_generates(run, direct):
    result = run(START)
    assert result["backend"] == "llama.cpp" and result["weights"] == "trained" and result["dtype"] == "Q4_1"
    assert result["text"] == direct(START["prompt"], max_tokens=12, temperature=0) and len(result["text"]) > 20
    assert (result["prompt_tokens"], result["completion_tokens"], result["finish_reason"]) == (4, 12, "length")
    assert result["prefill_tokens_per_s"] > 0 and result["decode_tokens_per_s"] > 0
    chance = {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "seed": 7}
    first, again, other = (run(START | chance | {"seed": seed})["text"] for seed in (7, 7, 8))
    assert first == again != other
    assert first == direct(START["prompt"], max_tokens=12, **chance)


def test_llama_answers_a_chat_and_is_warm_the_second_time(run):
    cache.forget()
    updates = []
    question = "What is the capital of France?"
    first = run(
        {"prompt": question, "max_tokens": 16}, progress=lambda part, note="", text="": updates.append((part, text))
    )
    assert "Paris" in first["text"] and first["finish_reason"] == "stop"
    assert first["warm"] is False and first["load_s"] > 0
    texts = [text for _, text in updates]
    assert len(texts) > 3 and texts[-1] == first["text"] and all(map(str.startswith, texts[1:], texts))
    assert all(0 < part < 1 for part, _ in updates)
    second = run({"messages": [{"role": "user", "content": question}], "max_tokens": 16})
    assert (second["warm"], second["load_s"], second["text"]) == (True, 0, first["text"])
    assert second["prompt_tokens"] == first["prompt_tokens"] > 7


def test_llama_answers_a_batch_as_each_alone_and_ends_at_a_stop_string(run):
    prompts = ["Once upon a time", "The sky is", "1 2 3 4"]
    batch = run({"prompts": prompts, "raw": True, "max_tokens": 6})
    assert [answer["text"] for answer in batch["answers"]] == [
        run({"prompt": prompt, "raw": True, "max_tokens": 6})["text"] for prompt in prompts
    ]
    assert batch["completion_tokens"] == 18 and "text" not in batch
    whole = run(START)["text"]
    stop = whole[8:14]
    cut = run(START | {"stop": ["never said", stop]})
    assert cut["text"] == whole[: whole.index(stop)] and cut["finish_reason"] == "stop"


def test_llama_delivers_what_it_held_back_for_a_stop_text_that_never_came(run):
    asked, updates = {"prompt": "Count: one, two, three,", "raw": True, "max_tokens": 24}, []
    whole = run(asked)
    stop = whole["text"][-3:] + "#never"
    held = run(asked | {"stop": [stop]}, progress=lambda part, note="", text="": updates.append(text))
    assert held["text"] == whole["text"] == updates[-1] and held["finish_reason"] == "length"
    assert held["completion_tokens"] == whole["completion_tokens"] == 24


# --- PyTorch ---------------------------------------------------------------------------------------


def generated(models, prompt, count):
    """The text of `generate` when called directly."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from node.workloads.llm.pytorch import place

    tokenizer = AutoTokenizer.from_pretrained(models / "tiny")
    network = AutoModelForCausalLM.from_pretrained(models / "tiny", dtype=place(True)[1])
    asked = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        ids = network.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=count)
    return tokenizer.decode(ids[0, asked.shape[1] :], skip_special_tokens=True)


def test_torch_generates_what_the_library_generates(run, models):
    updates = []
    result = run(TINY | {"device": "cpu"}, progress=lambda part, note="", text="": updates.append(text))
    assert result["backend"] == "torch" and result["weights"] == "trained" and result["device"] == "cpu"
    assert result["text"] == generated(models, TINY["prompt"], 10) and len(set(result["text"].split())) > 3
    assert (result["prompt_tokens"], result["completion_tokens"], result["finish_reason"]) == (3, 10, "length")
    assert updates[-1] == result["text"] and all(map(str.startswith, updates[1:], updates))
    again = run(TINY | {"device": "cpu"})
    assert (again["warm"], again["load_s"], again["text"]) == (True, 0, result["text"])


def test_torch_answers_a_batch_as_each_alone(run):
    prompts = ["w1 w2 w3", "w40", "w5 w6 w7 w8 w9 w10 w11"]
    batch = run({"model": "tiny", "prompts": prompts, "max_tokens": 8})
    assert [answer["text"] for answer in batch["answers"]] == [
        run({"model": "tiny", "prompt": prompt, "max_tokens": 8})["text"] for prompt in prompts
    ]
    assert [answer["prompt_tokens"] for answer in batch["answers"]] == [3, 1, 7]


def test_torch_ends_at_a_stop_string_and_repeats_a_seed(run):
    whole = run(TINY)["text"]
    stop, updates = " ".join(whole.split()[3:5]), []
    cut = run(TINY | {"stop": [stop]}, progress=lambda part, note="", text="": updates.append(text))
    # Every update on the way is a part of the answer.
    assert updates[-1] and all(map(cut["text"].startswith, updates))
    assert cut["text"] == whole[: whole.index(stop)] and cut["finish_reason"] == "stop"
    assert cut["completion_tokens"] < 10
    chance = TINY | {"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0}
    first, again, other = (run(chance | {"seed": seed})["text"] for seed in (3, 3, 4))
    assert first == again != other


def test_torch_formats_a_chat_by_the_template_of_the_model(run):
    chat = run(TINY | {"model": "tiny-chat"})
    raw = run({"model": "tiny-chat", "prompt": "user w1 w2 w3", "raw": True, "max_tokens": 10})
    turns = {"model": "tiny-chat", "messages": [{"role": "user", "content": "w1 w2 w3"}], "max_tokens": 10}
    assert chat["prompt_tokens"] == 4 and chat["text"] == raw["text"] == run(turns)["text"]
    with pytest.raises(InputFault, match=r"payload\.messages .* no chat template"):
        run(turns | {"model": "tiny"})


def test_a_size_without_a_model_file_gets_random_weights_and_says_so(run):
    result = run({"model": "360m", "prompt": "abc", "max_tokens": 2})
    assert (result["model"], result["weights"], result["backend"]) == ("360M", "random", "torch")
    assert result["parameters"] == 361_821_120 and result["completion_tokens"] == 2
    cache.forget()


@pytest.mark.parametrize("more", [{}, {"repeat_penalty": 2}, {"temperature": 2, "top_k": 1}], ids=str)
def test_both_backends_generate_the_same_from_one_gguf_file(run, more):
    asked = {"model": "tiny-file.gguf", "prompt": "ABC2", "max_tokens": 10, **more}
    llama, torch = (run(asked | {"backend": backend}) for backend in ("llama.cpp", "torch"))
    assert llama["text"] == torch["text"] and len(set(llama["text"])) > 5
    for name in ("prompt_tokens", "completion_tokens", "finish_reason", "parameters", "weights", "model"):
        assert llama[name] == torch[name], name
    assert (llama["backend"], torch["backend"], llama["prompt_tokens"]) == ("llama.cpp", "torch", 3)
    assert run(asked)["backend"] == "llama.cpp"


# --- limits and absent libraries -------------------------------------------------------------------


@pytest.mark.parametrize(("model", "prompt_word", "room"), [("", "time ", 256), ("tiny", "w1 ", 64)])
def test_a_prompt_longer_than_the_context_is_refused_by_name(run, model, prompt_word, room):
    asked = {"model": model, "context": 64, "raw": True, "max_tokens": 2}
    assert run(asked | {"prompt": prompt_word * 9})["context"] == room
    with pytest.raises(InputFault, match=rf"payload\.prompt has \d+ tokens, (and|more than) the context of {room}"):
        run(asked | {"prompt": prompt_word * (room + 9)})
    with pytest.raises(InputFault, match=r"payload\.prompts has"):
        run(asked | {"prompts": ["w1", prompt_word * (room + 9)]})
    with pytest.raises(InputFault, match=r"payload\.context is 100000, and the model's maximum is"):
        run({"model": model, "prompt": "w1", "context": 100_000})


def test_an_answer_ends_with_the_context(run):
    result = run({"model": "tiny", "prompt": "w1 " * 60, "context": 64, "max_tokens": 100})
    assert (result["completion_tokens"], result["finish_reason"]) == (4, "length")
    result = run({"prompt": "time " * 240, "raw": True, "context": 256, "max_tokens": 100})
    assert result["prompt_tokens"] + result["completion_tokens"] in (256, 257) and result["finish_reason"] == "length"


def without(monkeypatch, *modules):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name in modules else real(name, *more))


def test_without_one_back_end_the_other_is_used(run, models, tmp_path, monkeypatch):
    without(monkeypatch, "xllamacpp")
    (info,), _ = probe_packages([KINDS["llm_inference"]], tmp_path / "proofs")
    assert info.available and run(TINY)["backend"] == "torch"
    assert run({"model": "tiny-file", "prompt": "ABC", "max_tokens": 3})["backend"] == "torch"
    with pytest.raises(llm_models.ModelUnavailable, match=r"lacks xllamacpp: pip install 'queztl\[llm\]'"):
        run(START | {"backend": "llama.cpp"})
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    without(monkeypatch, "torch")
    (info,), _ = probe_packages([KINDS["llm_inference"]], tmp_path / "proofs")
    assert info.available and run(START | {"max_tokens": 2})["backend"] == "llama.cpp"
    with pytest.raises(llm_models.ModelUnavailable, match=r"torch and transformers.*pip install 'queztl\[llm-torch\]'"):
        run(TINY)


def test_without_both_it_says_what_it_lacks(run, tmp_path, monkeypatch):
    without(monkeypatch, "xllamacpp", "torch", "transformers")
    (info,), _ = probe_packages([KINDS["llm_inference"]], tmp_path / "proofs")
    assert not info.available and info.how_to_install == "pip install 'queztl[llm]'  # 130 MB"
    assert info.reason == "needs xllamacpp (or torch and transformers and safetensors), not installed here"
    with pytest.raises(llm_models.ModelUnavailable, match="pip install"):
        run(START)


def test_a_back_end_that_cannot_run_the_model_is_refused(run):
    with pytest.raises(InputFault, match=r"payload\.backend is llama\.cpp, which can't run this model"):
        run(TINY | {"backend": "llama.cpp"})


def test_a_missing_model_is_unavailable_and_not_an_input_fault(run):
    message = r"no model 'Mistral-7B-v3'; it has tiny, tiny-chat, tiny-file, SmolLM2"
    with pytest.raises(llm_models.ModelUnavailable, match=message) as caught:
        run({"model": "Mistral-7B-v3", "prompt": "x"})
    assert error_of("llm_inference", caught.value).code == "unavailable"
