"""llm_inference without a model: payloads, the choice of files at a hub, and which loaded model is closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import InputFault
from node.workloads.llm import cache, hub


@pytest.mark.parametrize(
    "payload",
    [{"prompt": "x", "prompts": ["y"]}, {"prompt": "x", "messages": [{"role": "user", "content": "y"}]},
     {"prompt": ""}, {"prompts": []}, {"prompts": ["x"] * 65}, {"prompt": "x", "temperature": float("nan")}],
)  # fmt: skip
def test_a_payload_without_exactly_one_prompt_is_refused_at_submission(payload):
    with pytest.raises(BadInput):
        validate("llm_inference", payload)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", ".", "a/b", "a\\b", "~", "x" * 129, "a\n", "a\0", "Ã"])
def test_a_name_is_no_path(name):
    with pytest.raises(BadInput) as caught:
        validate("llm_inference", {"prompt": "x", "model": name})
    assert [fault.field for fault in caught.value.faults] == ["payload.model"]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("payload.stop.0", {"stop": ["x" * 1_000_000]}),
        ("payload.stop", {"stop": ["x"] * 9}),
        ("payload.stop.1", {"stop": ["x", ""]}),
        ("payload.prompt", {"prompt": "x" * 1_000_001}),
        ("payload.max_tokens", {"max_tokens": 1 << 40}),
        ("payload.context", {"context": 1 << 40}),
    ],
)
def test_too_large_values_are_refused_at_submission(field, fields):
    with pytest.raises(BadInput) as caught:
        validate("llm_inference", {"prompt": "x"} | fields)
    assert {fault.field for fault in caught.value.faults} == {field}


@pytest.mark.parametrize("name", ["tiny", "../tiny", "lab/../tiny", "lab/tiny/more", "/tiny", "lab/tiny@", "-lab/tiny"])
def test_an_invalid_id_is_refused_at_submission(name):
    with pytest.raises(BadInput, match="hub"):
        validate("llm_inference", {"prompt": "x", "hub": name}, closed=True)


def test_a_model_and_a_hub_exclude_each_other():
    with pytest.raises(BadInput, match="must be left out when a model is named"):
        validate("llm_inference", {"prompt": "x", "hub": "lab/tiny", "model": "tiny"}, closed=True)


NAMES = st.from_regex(r"\A[a-z]{1,8}\.(safetensors|gguf|bin|py|json|txt|model|pt)\Z")


@given(st.dictionaries(NAMES, st.integers(1, 10**9), max_size=8))
def test_only_safe_weights_and_descriptions_are_ever_chosen(files):
    safe = [name for name in files if name.endswith((".safetensors", ".gguf"))]
    if not safe:
        with pytest.raises(InputFault):
            hub.choose(files)
        return
    form, wanted = hub.choose(files)
    assert set(wanted) <= set(files) and any(name.endswith(form) for name in wanted)
    assert not [name for name in wanted if name.endswith((".bin", ".py", ".pt"))]
    assert form == "safetensors" or len(wanted) == 1


def test_split_gguf_files_are_refused():
    with pytest.raises(InputFault):
        hub.choose({"big-00001-of-00002.gguf": 5, "big-00002-of-00002.gguf": 5})


def test_the_least_recently_used_model_is_closed_when_a_new_one_needs_its_memory():
    closed = []

    class Loaded:
        def __init__(self, name):
            self.name, self.need_bytes = name, 40 << 20

        def close(self):
            closed.append(self.name)

    cache.forget()
    for name in "ab":
        cache.load(name, lambda name=name: Loaded(name), 40 << 20, 100)
    assert cache.have(lambda key: key == "a").name == "a" and closed == []
    cache.load("c", lambda: Loaded("c"), 40 << 20, 100)
    assert closed == ["b"] and cache.have(lambda key: key == "b") is None
    cache.forget()
    assert closed == ["b", "a", "c"]
