"""A failure of the machine is retried, and is told from one that the input makes certain."""

from __future__ import annotations

import errno
import os

import pytest

from mesh.errors import BadInput, Fault
from mesh.kinds.table import validate
from node.executor.context import CertainFailure, Context, InputFault, NotAvailableNow, load
from node.executor.worker_main import error_of
from node.workloads.common.machine_errors import machine_error


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
    payload = validate("database_ops", {"sql": "SELECT 1"}, closed=True)
    with pytest.raises(OSError, match="No space left") as caught:
        load("database_ops")(payload, Context(1, tmp_path))
    error = error_of("database_ops", caught.value)
    assert (error.code, error.retryable) == ("failed", True), error


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (CertainFailure("the loss is not a number any more at step 7"), "failed"),
        (InputFault("video", "is truncated: it ends after 2.00 s"), "bad_input"),
        (BadInput("the options are not valid", (Fault("payload.width", "must be at least 1"),)), "bad_input"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_would_happen_again_is_not_retried(problem, code):
    error = error_of("echo", problem)
    assert (error.code, error.retryable) == (code, False)
