"""The exit codes of `queztl`, and errors as sentences and documents. Pure."""

from __future__ import annotations

from typing import Any

OK = 0
TASK_FAILED = 1
BAD_INPUT = 2
NOT_REACHABLE = 3
NOT_FOUND = 4
TIMED_OUT = 5
BUSY = 6
INTERNAL = 70
INTERRUPTED = 130

#: Shown by --help; a test keeps it complete.
MEANINGS = {
    OK: "done",
    TASK_FAILED: "the task failed, was cancelled or expired (map: at least one did; doctor: something does not work)",
    BAD_INPUT: "usage error or bad input: every fault is listed on a line",
    NOT_REACHABLE: "the mesh can't be reached; nothing was submitted",
    NOT_FOUND: "there is nothing with that id",
    TIMED_OUT: "the task has not ended within the given time; it goes on",
    BUSY: "the mesh is busy or full; try again later",
    INTERNAL: "an internal error of queztl (--debug shows where)",
    INTERRUPTED: "interrupted with Ctrl-C",
}


def of_error(error: BaseException) -> int:
    """The exit code for `error`."""
    from mesh import errors

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    # Subclasses come first: BusUnavailable is also Busy.
    table: tuple[tuple[type[BaseException], int], ...] = (
        (errors.TaskFailed, TASK_FAILED),
        (errors.BusUnavailable, NOT_REACHABLE),
        (errors.Busy, BUSY),
        (errors.StorageFull, BUSY),
        (errors.NotFound, NOT_FOUND),
        (errors.WaitTimeout, TIMED_OUT),
        (errors.BadInput, BAD_INPUT),
        (errors.Conflict, BAD_INPUT),
        (errors.Forbidden, BAD_INPUT),
        (errors.Unsupported, BAD_INPUT),
        (errors.CannotStart, BAD_INPUT),
        (OSError, BAD_INPUT),
    )
    return next((code for kind, code in table if isinstance(error, kind)), INTERNAL)


def sentence(error: BaseException) -> str:
    """`error` in one sentence for people, without the faults of the input."""
    from mesh.errors import QueztlError

    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, QueztlError):
        # Faults are printed on lines of their own: a message that lists them is cut before the list.
        return error.message.partition(": ")[0] + ":" if getattr(error, "faults", ()) else error.message
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    if isinstance(error, OSError) and error.strerror:
        return f"a file can't be read or written: {error.strerror}"
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text} (run it with --debug to see where)"


def error_document(error: BaseException) -> dict[str, Any]:
    """`error` for programs: {"error": {code, message, exit_code, faults, …}}."""
    from mesh.errors import Busy, QueztlError, TaskFailed

    code = of_error(error)
    names = {INTERRUPTED: "interrupted", BAD_INPUT: "bad_input"}
    document: dict[str, Any] = {
        "code": error.code if isinstance(error, QueztlError) else names.get(code, "internal"),
        "message": error.message if isinstance(error, QueztlError) else sentence(error),
        "exit_code": code,
        "faults": [{"field": fault.field, "problem": fault.problem} for fault in getattr(error, "faults", ())],
    }
    if isinstance(error, TaskFailed):
        document |= {"id": error.task_id, "state": error.state, "reason": error.reason}
    if isinstance(error, Busy):
        document["retry_after_s"] = error.retry_after_s
    return {"error": document}
