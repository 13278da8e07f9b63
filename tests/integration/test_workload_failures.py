"""A failure that payload and seed determine is certain to repeat, and its error says so. The kinds run for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.executor.worker_main import error_of
from node.workloads.llm import cache
from tests.language_models import tiny_llama

#: The loss is NaN after some 20 steps.
DIVERGING = {"steps": 50, "optimizer": "sgd", "learning_rate": 10, "layers": 12, "width": 512}


def ended(kind: str, payload: object, folder: Path, **grants: tuple[str, ...]):
    """The error with which a task ends."""
    context = Context(1, folder, memory_mb=4096, grants=grants)
    with pytest.raises(Exception, match=r".") as caught:
        load(kind)(validate(kind, payload, closed=True), context)
    return error_of(kind, caught.value)


@pytest.mark.parametrize(
    ("kind", "payload", "code", "message"),
    [
        ("ml_training", {"steps": 60, "learning_rate": 0}, "failed", "did not fall"),
        ("ml_training", DIVERGING, "failed", "the loss of step"),
        ("ml_training", {"data": b"PK, but no archive"}, "bad_input", "is not a valid .npz"),
        ("image_processing", {"image": b"\xff\xd8\xff\xe0 no picture", "width": 8}, "bad_input", "payload.image"),
        ("video_encode_h264", {"video": b"RIFF....AVI no video"}, "bad_input", "payload.video"),
        ("database_ops", {"sql": "SELECT 1 / x FROM range(3) AS t(y)"}, "bad_input", "payload.sql failed"),
        ("database_ops", {"sql": "SELECT error('on purpose')"}, "bad_input", "payload.sql failed"),
        ("llm_inference", {"prompt": "time " * 300, "context": 256, "max_tokens": 2}, "bad_input", "payload.prompt"),
    ],
    ids=str,
)
def test_what_the_payload_determines_is_not_retried(kind, payload, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = ended(kind, payload, tmp_path)
    assert (error.code, error.retryable) == (code, False) and message in error.message, error
    assert "\n" not in error.message


def test_a_model_whose_values_are_not_numbers_fails_for_good(tmp_path, monkeypatch):
    """Greedy decoding would take the first token again and again, and sampling would raise an error of PyTorch."""
    from safetensors.torch import load_file, save_file

    weights = tiny_llama(tmp_path / "models" / "broken") / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    save_file(tensors, weights, {"format": "pt"})
    monkeypatch.chdir(tmp_path)
    for more in ({}, {"temperature": 1.0}):
        payload = {"model": "broken", "prompt": "w1 w2", "max_tokens": 3, **more}
        error = ended("llm_inference", payload, tmp_path, models=(str(tmp_path / "models"),))
        assert (error.code, error.retryable) == (
            "failed",
            False,
        ) and "not numbers (NaN) after 2 tokens" in error.message
    cache.forget()
