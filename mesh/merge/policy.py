"""Two meshes of one name have met: which of them goes into the other, and whether anybody has to say so. Pure.

Both sides come to the same answer, because it follows from facts that both read from the servers. Unasked a merge
happens only when it can hurt nobody: they are the same mesh (the same id: it was rescued in two places, or a folder was
copied), they share a key, or the one that goes is empty and was founded a moment ago.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Literal

#: A mesh that is older has somebody who counts on it, even if it holds nothing.
YOUNG_S = 120.0


@dataclass(frozen=True)
class MeshSummary:
    """One mesh, as its servers tell."""

    id: str
    name: str
    founder: str = ""
    nodes: int = 0
    """Nodes that are up."""
    age_s: float = 0.0
    """Since its queue was made, by its own server's clock."""
    unfinished: int = 0
    """Tasks that wait, run or are delayed."""
    stored: int = 0
    """Results, states and dead letters."""
    key: str = ""
    """Fingerprint of its key; empty without one."""
    lease: tuple[str, int] = ("", 0)
    """(its master, fence): tells two groups of one id apart."""

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing of anybody."""
        return not self.unfinished and not self.stored

    @property
    def may_go(self) -> bool:
        """Whether nobody would miss it."""
        return self.is_empty and self.age_s < YOUNG_S


@dataclass(frozen=True)
class Verdict:
    """What follows from a meeting."""

    do: Literal["nothing", "merge", "say"]
    loser: str = ""
    """Id of the mesh that goes into the other one."""
    reason: str = ""


def judge(one: MeshSummary, other: MeshSummary) -> Verdict:
    """What to do about two meshes that see each other; the same for either order of the arguments."""
    if one.name != other.name or one == other or (one.id == other.id and one.lease == other.lease):
        return Verdict("nothing")
    if one.key != other.key:
        return Verdict("nothing", reason="they have different keys")
    goes = loser(one, other)
    if one.id == other.id:
        return Verdict("merge", goes.id, "they are the same mesh")
    if one.key:
        return Verdict("merge", goes.id, "they share a key")
    if goes.may_go:
        return Verdict("merge", goes.id, f"{goes.id} is empty and was founded a moment ago")
    return Verdict("say", goes.id, "both are in use, or were")


def loser(one: MeshSummary, other: MeshSummary) -> MeshSummary:
    """The one that goes: whom nobody would miss, else the one with fewer nodes, the younger, the later name."""
    return max(one, other, key=_weakness)


def _weakness(summary: MeshSummary) -> tuple[Any, ...]:
    return (summary.may_go, -summary.nodes, -summary.age_s, summary.id, summary.lease, *astuple(summary))


def words(mine: MeshSummary, other: MeshSummary, verdict: Verdict) -> str:
    """The alarm for people of `mine`; empty when there is nothing to say."""
    if verdict.do != "say":
        return ""
    goes, stays = (mine, other) if verdict.loser == mine.id else (other, mine)
    return (
        f"There is another mesh called {mine.name}: {other.id} with {_nodes(other)} and {_tasks(other)} (this one, "
        f"{mine.id}, has {_nodes(mine)} and {_tasks(mine)}). `queztl bus merge` shows what it takes to make them one: "
        f"{goes.id} would go into {stays.id}."
    )


def _nodes(summary: MeshSummary) -> str:
    return f"{summary.nodes} node{'' if summary.nodes == 1 else 's'}"


def _tasks(summary: MeshSummary) -> str:
    return f"{summary.unfinished} unfinished task{'' if summary.unfinished == 1 else 's'}"


def explain(goes: MeshSummary, stays: MeshSummary) -> list[str]:
    """What a merge does, for a person who is asked: sentences."""
    return [
        f"{goes.id} ({_nodes(goes)}, {_tasks(goes)}, {_age(goes)} old) goes into {stays.id} "
        f"({_nodes(stays)}, {_tasks(stays)}, {_age(stays)} old).",
        f"Its nodes finish what they run (for half a minute) and join {stays.id}. Its {_tasks(goes)}, its results, "
        "dead letters, blobs and idempotency keys move, each removed only after the other mesh has it; meanwhile it "
        "takes no new work.",
        "Its journal and its load history stay in its old store, which is put aside on the machines that ran its bus.",
    ]


def _age(summary: MeshSummary) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if summary.age_s >= seconds:
            return f"{summary.age_s / seconds:.0f} {unit}"
    return f"{summary.age_s:.0f} s"
