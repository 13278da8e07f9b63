"""What the bus refuses, as types."""

from __future__ import annotations

from mesh.errors import BusUnavailable, Busy, QueztlError, StorageFull

WRONG_LAST_SEQUENCE = (10071, 10164)
IN_PROCESS = (10164, 10158)
"""An earlier copy of the message, or of another one under its condition, is not committed yet, and may never be: a
leader that was cut off answers so and is overruled later."""
NOT_YET = 10008
"""The servers have no leader right now, or the one asked just came up: nothing was done, it may be asked again."""
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
STREAM_FULL = (10077, 10047, 10023)
"""Maximum bytes or messages exceeded; insufficient storage resources."""


class ApiError(QueztlError):
    """The bus refused an administrative call."""

    def __init__(self, status: int, error_code: int, description: str) -> None:
        super().__init__(f"the bus refused: {description} ({error_code})")
        self.status, self.error_code, self.description = status, error_code, description


class NobodyAnswers(BusUnavailable):
    """Nobody listens on that subject right now: its group has no leader, or there is no such service."""


class WrongSequence(QueztlError):
    """Somebody else wrote that record first."""

    code = "wrong_sequence"


class KeyExists(WrongSequence):
    """That key exists already."""


class DamagedBlob(BusUnavailable):
    """A blob of which a part is lost or wrong, for good."""


def refusal(error: dict[str, object], subject: str) -> QueztlError:
    """The typed error for a JetStream `error` object in answer to a publish on `subject`."""
    code = int(str(error.get("err_code", 0)))
    text = str(error.get("description", "refused"))
    if code in WRONG_LAST_SEQUENCE:
        return WrongSequence(f"somebody else wrote {subject} first")
    if code in STREAM_FULL:
        if subject.startswith("work."):
            return Busy("the queue is full; try again in a few seconds", retry_after_s=5.0)
        return StorageFull(f"the bus has no room left ({text}); free disk space or raise the limit")
    return ApiError(int(str(error.get("code", 0))), code, text)
