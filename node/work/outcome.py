"""What follows from the end of an attempt. Pure: values in, one decision out; nothing is done here.

End: write the final record, then acknowledge. Again: note the failed attempt, then give the task back with a
delay. A task that used up its attempts, or that killed its worker on two different nodes (poison), also becomes a
dead letter. A task whose input is at fault is never tried again: the same input fails the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.config import MeshConfig
from mesh.messages import TaskError

#: Its node died under it this often: not attempts, but no accident any more.
LOST_LIMIT = 5
#: Codes of errors that another attempt can't mend.
FINAL_CODES = frozenset({"bad_input", "unknown_kind", "cancelled", "expired", "poison", "blob_missing"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of a task's attempts so far, this one included."""

    number: int = 1
    max_attempts: int = 3
    crashed_on: tuple[str, ...] = ()
    lost: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """The task is over."""

    state: str
    error: TaskError | None = None
    dead_letter: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt, after `delay_s`."""

    delay_s: float
    next_attempt: int
    crashed_on: tuple[str, ...]
    error: TaskError


DONE = End("done")


def settle(attempt: Attempt, error: TaskError | None, node: str, config: MeshConfig) -> End | Again:
    """What to do now that an attempt on `node` ended with `error` (None: it has a result)."""
    if error is None:
        return DONE
    if error.code == "cancelled":
        return End("cancelled", error)
    if error.code == "expired":
        return End("expired", error)
    if error.code in FINAL_CODES:
        return End("failed", error)
    crashed_on = attempt.crashed_on
    if error.code == "crashed" and node not in crashed_on:
        crashed_on = (*crashed_on, node)
    if len(crashed_on) >= 2:
        poison = TaskError("poison", f"killed its worker on two nodes ({', '.join(crashed_on)}): {error.message}")
        return End("failed", poison, dead_letter=True)
    if attempt.number >= attempt.max_attempts:
        return End("failed", error, dead_letter=True)
    return Again(backoff_s(attempt.number, config), attempt.number + 1, crashed_on, error)


def backoff_s(failed_attempts: int, config: MeshConfig) -> float:
    """Seconds until the next attempt: doubled after each, bounded."""
    return float(min(config.retry_max_s, config.retry_base_s * 2 ** (failed_attempts - 1)))


def lost_too_often(attempt: Attempt) -> End | None:
    """The end of a task under which one node after the other died; None when it may run."""
    if attempt.lost < LOST_LIMIT:
        return None
    message = f"its node died {attempt.lost} times while it ran"
    return End("failed", TaskError("poison", message), dead_letter=True)
