"""A failure that payload and seed determine is certain to repeat, and its error says so; one of the machine is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mesh.kinds.table import validate
from node.executor.context import CertainFailure, Context, NotAvailableNow, load
from node.executor.worker_main import error_of
from node.workloads.common.machine_errors import machine_error
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


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "failed"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "file_too_large"),
        (RuntimeError("a hashing process ended with status -9"), "failed"),
        (NotAvailableNow("the model needs 9 MB, and the machine has 1 MB free"), "busy"),
        (ImportError("No module named 'cv2'"), "unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_failure_of_the_machine_is_retried(problem, code):
    error = error_of("echo", problem)
    assert (error.code, error.retryable) == (code, True)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("IO Error: Could not write to file: No space left on device", OSError),
        ('IO Error: Could not write file "x": File too large', OSError),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", MemoryError),
        ("CUDA out of memory. Tried to allocate 2 GiB", MemoryError),
        ("Conversion Error: Could not convert string 'abc' to INT32", None),
    ],
)
def test_a_failing_disk_or_memory_is_told_from_a_fault_of_the_input(message, found):
    problem = machine_error(RuntimeError(message))
    assert problem is None if found is None else isinstance(problem, found)


def test_sql_that_fills_the_disk_is_no_fault_of_the_sql(tmp_path, monkeypatch):
    """DuckDB reports a full disk with the type that it uses for unreadable files."""
    import duckdb

    from node.workloads.database import sql_sandbox

    full = duckdb.IOException("IO Error: Could not write all bytes to file: No space left on device")

    def fail(*arguments):
        raise full

    monkeypatch.setattr(sql_sandbox, "_watched", fail)
    error = ended("database_ops", {"sql": "SELECT 1"}, tmp_path)
    assert (error.code, error.retryable) == ("failed", True), error


def test_an_input_fault_is_a_certain_failure():
    from node.executor.context import InputFault

    assert issubclass(InputFault, CertainFailure)
