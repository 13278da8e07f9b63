"""The refusals of the bus, as types."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mesh.bus.error_codes import KNOWN, Meaning, meaning
from mesh.errors import BusUnavailable, Busy, QueztlError, StorageFull

WRONG_LAST_SEQUENCE = (10071, 10164)
IN_PROCESS = (10164, 10158)
"""An earlier copy of the message, or of another one with the same condition, is not committed yet and may never be: a
leader that is cut off answers so, and a later leader overrules it."""
NOT_YET = 10008
"""The servers have no leader at the moment, or the one asked has just started: nothing was done, a retry is safe."""
STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
MESSAGE_DELETE_FAILED = 10057
STREAM_FULL = (10077, 10047)
"""Maximum bytes or messages exceeded; insufficient storage resources."""
_GONE = (MESSAGE_NOT_FOUND, 10043)
_GONE_REASONS = ("no message found", "deleted message", "stream store eof")
#: What the server says, with whatever code, when its disk is full (ENOSPC, EDQUOT).
_DISK_FULL = ("no space left on device", "disk quota exceeded")
_PATH = re.compile(r"(?<![\w.])(?:/[^\s/:'\"]+){2,}/?")


class ApiError(QueztlError):
    """The bus refused an administrative call."""

    def __init__(self, status: int, error_code: int, description: str) -> None:
        super().__init__(f"the bus refused: {without_paths(description)} ({error_code})")
        self.status, self.error_code, self.description = status, error_code, description


class NotNow(ApiError, BusUnavailable):
    """The bus servers are between two states, as while one of them restarts: the same request succeeds later."""

    def __init__(self, status: int, error_code: int, description: str) -> None:
        super().__init__(status, error_code, description)
        reason = f"can't do that right now ({without_paths(description)}, {error_code})"
        sentence = "has no leader right now" if error_code == NOT_YET else reason
        self.args = (f"the bus {sentence}; try again in some seconds",)


class DiskFull(ApiError, StorageFull):
    """The disk of a bus server is full."""

    def __init__(self, status: int, error_code: int, description: str) -> None:
        super().__init__(status, error_code, description)
        self.args = ("the disk of a bus server is full, so the bus stores nothing; free space on it",)


class NoRoom(ApiError, StorageFull):
    """The limits of the store leave no room for a stream or consumer."""


class NobodyAnswers(BusUnavailable):
    """Nobody subscribes to that subject at the moment: its Raft group has no leader, or there is no such service."""


class WrongSequence(QueztlError):
    """Somebody else wrote that record first."""

    code = "wrong_sequence"


class KeyExists(WrongSequence):
    """That key exists already."""


class DamagedBlob(BusUnavailable):
    """A part of the blob is lost or wrong, for good."""


def without_paths(text: str) -> str:
    """`text` without the absolute paths of the machine that wrote it: they tell clients nothing."""
    return _PATH.sub("a file", text)


def answer_of(data: bytes) -> dict[str, Any]:
    """The JSON object that JetStream answered. Raises: BusUnavailable when it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BusUnavailable("the bus gave an answer that can't be read; try again shortly")
    return document


def api_error(error: Mapping[str, object]) -> ApiError:
    """The typed error for a JetStream `error` object."""
    description, error_code = str(error.get("description", "")), _number(error.get("err_code"))
    status = _number(error.get("code"))
    if any(words in description.lower() for words in _DISK_FULL):
        return DiskFull(status, error_code, description)
    means = meaning(error_code, status, description)
    if means is Meaning.TRANSIENT:
        return NotNow(status, error_code, description)
    if error_code in STREAM_FULL:
        return NoRoom(status, error_code, description)
    made = ApiError(status, error_code, description)
    if error_code not in KNOWN:
        made.args = (f"{made.message}, for a reason that this version does not know; the log of its server may tell",)
    elif means is Meaning.MISUSE:
        made.args = (f"{made.message}, which is a defect of this program; please report it",)
    return made


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def is_gone(error: ApiError) -> bool:
    """Whether the bus refused because the message is not there any more."""
    reasons = any(reason in error.description.lower() for reason in _GONE_REASONS)
    return error.error_code in _GONE or (error.error_code == MESSAGE_DELETE_FAILED and reasons)


def refusal(error: Mapping[str, object], subject: str) -> QueztlError:
    """The typed error for a JetStream `error` object in reply to a publish on `subject`."""
    refused = api_error(error)
    if refused.error_code in WRONG_LAST_SEQUENCE:
        return WrongSequence(f"somebody else wrote {subject} first")
    if isinstance(refused, DiskFull | NotNow):
        return refused
    if refused.error_code in STREAM_FULL:
        if subject.startswith("work."):
            return Busy("the queue is full; try again in a few seconds", retry_after_s=5.0)
        text = without_paths(refused.description) or "refused"
        return StorageFull(f"the bus has no room left ({text}); free disk space or raise the limit")
    return refused
