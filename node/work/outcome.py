"""Decides what follows from the end of an attempt. Pure: values in, one decision out.

End: write the result record, then acknowledge. Retry: record the failed attempt, then return the task with a delay. A
task that used up its attempts, or that killed its worker on two nodes (poison), also becomes a dead letter. A failure
that is certain to repeat is never retried: the error says so (`retryable`), or the node lacks what the task needs and
no other node could run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mesh.config import MeshConfig
from mesh.messages import TaskError, TaskState

#: A task whose node died under it this often ends as poison, although a lost node does not count as an attempt.
LOST_LIMIT = 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of a task's attempts, the present one included."""

    number: int = 1
    max_attempts: int = 3
    crashed_on: tuple[str, ...] = ()
    """Nodes on which it killed its worker."""
    lost: int = 0
    """How often its node died while it ran."""


@dataclass(frozen=True, slots=True)
class End:
    """The task has ended."""

    state: str
    error: TaskError | None = None
    dead_letter: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """The task gets another attempt after `delay_s`."""

    delay_s: float
    next_attempt: int
    crashed_on: tuple[str, ...]
    error: TaskError


DONE = End("done")


@cache
def first_attempt(max_attempts: int) -> Attempt:
    """A task's first attempt: a shared value, because every task needs one."""
    return Attempt(1, max_attempts)


def attempt_after(state: TaskState, first: Attempt, is_own: bool) -> Attempt:
    """The present attempt of a task that left `state` behind. A run whose node died is counted, but as no attempt.

    `is_own`: whether this very node wrote `state`.
    """
    lost = state.lost + (1 if state.state == "running" and not is_own else 0)
    return Attempt(max(1, state.attempt), first.max_attempts, tuple(state.crashed_on), lost)


def decide(
    attempt: Attempt, error: TaskError | None, node: str, config: MeshConfig, elsewhere: bool = True
) -> End | Retry:
    """The consequence of an attempt on `node` that ended with `error` (None: with a result).

    `elsewhere`: whether another node of the mesh could run the task.
    """
    if error is None:
        return DONE
    if error.code == "cancelled":
        return End("cancelled", error)
    if error.code == "expired":
        return End("expired", error)
    if not error.retryable:
        return End("failed", error)
    if error.code == "unavailable" and not elsewhere:
        return End("failed", error, dead_letter=True)
    crashed_on = attempt.crashed_on
    if error.code == "crashed" and node not in crashed_on:
        crashed_on = (*crashed_on, node)
    if len(crashed_on) >= 2:
        poison = TaskError("poison", f"killed its worker on two nodes ({', '.join(crashed_on)}): {error.message}")
        return End("failed", poison, dead_letter=True)
    if attempt.number >= attempt.max_attempts:
        return End("failed", error, dead_letter=True)
    return Retry(backoff_s(attempt.number, config), attempt.number + 1, crashed_on, error)


def backoff_s(failed_attempts: int, config: MeshConfig) -> float:
    """Seconds until the next attempt: doubled after each failure, up to `retry_max_s`."""
    return float(min(config.retry_max_s, config.retry_base_s * 2 ** (failed_attempts - 1)))


def lost_too_often(attempt: Attempt) -> End | None:
    """The end of a task whose nodes died LOST_LIMIT times while it ran; None when it may run."""
    if attempt.lost < LOST_LIMIT:
        return None
    message = f"its node died {attempt.lost} times while it ran"
    return End("failed", TaskError("poison", message), dead_letter=True)
