"""The life of a task: the table of legal transitions, and the only place that knows it.

queued -> running -> done | failed | cancelled | expired. A task that is given back or whose node died goes
from running to queued again. The first final state wins: on the bus that is the `.end` record, written with
"expected last sequence 0", which a second writer can't overwrite.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a task is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED, State.EXPIRED}),
    State.RUNNING: frozenset({State.QUEUED, State.RUNNING, State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}

FINAL = frozenset(state for state, nexts in TRANSITIONS.items() if not nexts)


class IllegalTransition(ValueError):
    """A step the table does not allow."""

    def __init__(self, before: State, after: State) -> None:
        super().__init__(f"a task can't go from {before} to {after}")
        self.before, self.after = before, after


def step(before: State, after: State) -> State:
    """`after`, if the table allows it from `before`.

    Raises: IllegalTransition, with both states in it.
    """
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(before, after)
    return after


def diagram() -> str:
    """The table as a Mermaid state diagram (ARCHITECTURE.md holds it; a test keeps the two the same)."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for before, nexts in TRANSITIONS.items():
        lines += [f"    {before} --> {after}" for after in State if after in nexts]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)
