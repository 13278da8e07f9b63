"""The jobs that go into the executor, and their ends that come out."""

from __future__ import annotations

from pathlib import Path
from time import time
from typing import Any

import msgspec

from mesh.messages import TaskError
from node.executor.protocol import ResultFrame
from node.executor.worker_main import memory_message


class Job(msgspec.Struct):
    """One task in the form that a worker needs."""

    id: str
    kind: str
    payload: bytes = b""
    """raw MessagePack of the payload; b"" means all defaults"""
    cores: int = 1
    timeout_s: float = 0.0
    """0: no limit"""
    memory_mb: int = 0
    """how much memory it may use beyond that of the idle worker; 0: no limit"""
    blobs: dict[str, Path] = {}
    resume: Path | None = None
    """the checkpoint to resume from"""
    token: Any = None
    """any value of the caller; returned with the end of the job"""


class Finished(msgspec.Struct):
    """How a job ended."""

    job: Job
    result: bytes = b""
    """raw MessagePack; b"" when there is none, or when `result_file` holds it"""
    result_file: Path | None = None
    """A result over CLAIM_CHECK_BYTES: the bytes themselves when `content_type` is set, else MessagePack. The receiver
    must move or delete the file."""
    content_type: str = ""
    info: dict[str, Any] = {}
    attached: dict[str, tuple[str, str]] = {}
    """name -> (file, content type) of each file that belongs to the result. The receiver must move or delete them."""
    error: TaskError | None = None
    """code: failed, bad_input, unknown_kind, unavailable, busy, timeout, memory, file_too_large, crashed, cancelled"""
    started_at: float = 0.0
    """Unix seconds; 0 when it never started"""
    ran_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it has a result."""
        return self.error is None


def answered(job: Job, end: ResultFrame) -> Finished:
    """The end of a job that its worker reported."""
    file = Path(end.file) if end.file else None
    return Finished(
        job,
        end.result,
        file,
        end.content_type,
        end.info or {},
        end.attached or {},
        end.error,
        end.started_at,
        end.ran_s,
    )


def unanswered(job: Job, why: str, ran_s: float = 0.0, how: str = "") -> Finished:
    """The end of a job that its worker did not report.

    `why`: cancelled, timeout, memory or crashed; `how`: how the worker ended, as a phrase.
    """
    message = {
        "cancelled": "The task was cancelled.",
        "timeout": f"{job.kind} ran longer than its limit of {job.timeout_s:g} s; ask for more with timeout_s.",
        "memory": memory_message(job.kind, job.memory_mb),
        "crashed": f"{job.kind} ended its worker process, which {how}.",
    }[why]
    error = TaskError(why, message, retryable=why != "cancelled")
    started_at = time() - ran_s if ran_s else 0.0
    return Finished(job, error=error, started_at=started_at, ran_s=ran_s)
