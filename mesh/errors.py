"""Errors, grouped by who must act: the caller with another request, the caller later, or the operator.

Each class has the HTTP status that the REST bridge answers with, and a stable `code` for programs. The message is one
sentence for people: what happened and what to do. Users never see a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One fault of an input: `field` is a dotted path ("payload.width"), `problem` a phrase ("must be at least 1")."""

    field: str
    problem: str


class QueztlError(Exception):
    """The mesh had an internal error; the node's log has the details."""

    http_status = 500
    code = "internal"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n")[0])

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self.args[0])


class ResultUnreadable(QueztlError):
    """The stored result of the task can't be read; submit the task again."""

    code = "result_unreadable"


# --- the caller must fix the request ---------------------------------------------------------------


class BadInput(QueztlError):
    """The request is not valid."""

    http_status = 400
    code = "bad_input"

    def __init__(self, message: str | None = None, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


def bad_input(what: str, faults: Sequence[Fault]) -> BadInput:
    """A BadInput with `what` ("The request is not valid") and every fault, both in the sentence and in `faults`."""
    listed = "; ".join(f"{fault.field} {fault.problem}" for fault in faults)
    return BadInput(f"{what}: {listed}.", tuple(faults))


class UnknownKind(BadInput):
    """No such kind of work."""

    code = "unknown_kind"


class TooLarge(BadInput):
    """The request is larger than the mesh takes; upload the data as a blob and name the blob instead."""

    http_status = 413
    code = "too_large"


class NotFound(QueztlError):
    """There is nothing under that id."""

    http_status = 404
    code = "not_found"


class Conflict(QueztlError):
    """That would contradict something already accepted."""

    http_status = 409
    code = "conflict"


class Forbidden(QueztlError):
    """This caller may not do that."""

    http_status = 403
    code = "forbidden"


class Misdirected(QueztlError):
    """The Host header does not name this node."""

    http_status = 421
    code = "misdirected"


class Unsupported(QueztlError):
    """That method or form is not supported here."""

    http_status = 405
    code = "unsupported"


# --- the caller should come back later -------------------------------------------------------------


class Busy(QueztlError):
    """The mesh can't take more work right now; try again shortly."""

    http_status = 503
    code = "busy"

    def __init__(self, message: str | None = None, retry_after_s: float = 2.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooMany(Busy):
    """There are as many of those as the mesh takes; try again later, or with fewer different ones."""

    http_status = 429
    code = "too_many"


class BusUnavailable(Busy):
    """The bus can't be reached right now; nothing was accepted, try again shortly."""

    code = "bus_unavailable"


class WaitTimeout(QueztlError):
    """The task has not ended within the time you were willing to wait; it goes on."""

    http_status = 504
    code = "wait_timeout"


# --- the operator must act -------------------------------------------------------------------------


class StorageFull(QueztlError):
    """The bus has no room left for that; free disk space or raise the limit."""

    http_status = 507
    code = "storage_full"


class StoreUnavailable(BusUnavailable):
    """The bus can store nothing right now; nothing was accepted, try again later."""

    code = "store_unavailable"


class StoreFullNow(StoreUnavailable, StorageFull):
    """The disk of a bus server is full; nothing was accepted."""

    http_status = 507
    code = "storage_full"


class CannotStart(QueztlError):
    """The node can't start."""

    code = "cannot_start"
    exit_code = 2


class IncompatibleMesh(CannotStart):
    """The mesh speaks another wire version than this program; upgrade the older of the two."""

    code = "incompatible_mesh"


# --- the task itself -------------------------------------------------------------------------------


class TaskFailed(QueztlError):
    """The task ended without a result."""

    http_status = 409
    code = "task_failed"

    def __init__(self, message: str, task_id: str, state: str, reason: str) -> None:
        super().__init__(message)
        self.task_id, self.state, self.reason = task_id, state, reason
