"""The states of a task and the table of legal transitions, which is defined only here.

queued -> running -> done | failed | cancelled | expired. A task that a node gives back, or whose node dies, goes from
running to queued again. The first final state wins: it is the `.end` record, which is written with "expected last
sequence 0", so a second writer can't overwrite it.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of a task."""

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
    """A transition that the table does not contain."""

    def __init__(self, before: State, after: State) -> None:
        super().__init__(f"a task can't go from {before} to {after}")
        self.before, self.after = before, after


def step(before: State, after: State) -> State:
    """`after`, if the table allows the transition.

    Raises: IllegalTransition, which names both states.
    """
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(before, after)
    return after


def diagram() -> str:
    """The table as a Mermaid state diagram. ARCHITECTURE.md shows it; a test compares the two."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for before, nexts in TRANSITIONS.items():
        lines += [f"    {before} --> {after}" for after in State if after in nexts]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)
