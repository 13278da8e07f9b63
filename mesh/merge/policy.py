"""Merge policy: which of two meshes of one name is merged into the other, and whether a person must order it. Pure.

Both sides reach the same decision, because it depends only on facts that both read from the servers. A merge happens
automatically only when it does no harm: they are the same mesh (the same id: it was rescued in two places, or a data
directory was copied), they share a key, or the one to be merged is empty and was created a moment ago.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Literal

#: An older mesh may be in use even if it is empty, seconds.
YOUNG_S = 120.0
#: Ages that differ by less count as equal, seconds: each side reads one a moment after the other.
AGE_TOLERANCE_S = 10.0


@dataclass(frozen=True)
class MeshSummary:
    """Facts about one mesh, as its bus servers report them."""

    id: str
    name: str
    founder: str = ""
    nodes: int = 0
    """Number of nodes that are up."""
    age_s: float = 0.0
    """Age of its queue in seconds, by its own server's clock."""
    unfinished: int = 0
    """Number of tasks that wait, run or are delayed."""
    stored: int = 0
    """Number of results, states and dead letters."""
    key: str = ""
    """Fingerprint of its key; empty without one."""
    lease: tuple[str, str] = ("", "")
    """Its leader and the leader's incarnation: distinguish two groups of bus servers with one mesh id."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no tasks and no records."""
        return not self.unfinished and not self.stored

    @property
    def is_disposable(self) -> bool:
        """Whether it is empty and young, so that its loss does no harm."""
        return self.is_empty and self.age_s < YOUNG_S


@dataclass(frozen=True)
class Verdict:
    """The decision about two meshes."""

    action: Literal["nothing", "merge", "alarm"]
    source: str = ""
    """Id of the mesh that is merged into the other one."""
    reason: str = ""


def judge(mesh: MeshSummary, other: MeshSummary) -> Verdict:
    """The decision about two meshes that have detected each other; it does not depend on the order of the arguments."""
    if mesh.name != other.name or mesh == other or (mesh.id == other.id and mesh.lease == other.lease):
        return Verdict("nothing")
    if mesh.key != other.key:
        return Verdict("nothing", reason="they have different keys")
    merged = source(mesh, other)
    if mesh.id == other.id:
        return Verdict("merge", merged.id, "they are the same mesh")
    if mesh.key:
        return Verdict("merge", merged.id, "they share a key")
    if merged.is_disposable:
        return Verdict("merge", merged.id, f"{merged.id} is empty and was created a moment ago")
    return Verdict("alarm", merged.id, "both are in use, or were")


def source(mesh: MeshSummary, other: MeshSummary) -> MeshSummary:
    """The mesh to merge into the other: a disposable one, else that with fewer nodes, the younger, the higher id."""
    by_age = abs(mesh.age_s - other.age_s) >= AGE_TOLERANCE_S

    def merge_order(summary: MeshSummary) -> tuple[Any, ...]:
        age_s = summary.age_s if by_age else 0.0
        return (summary.is_disposable, -summary.nodes, -age_s, summary.id, summary.lease, *astuple(summary))

    return max(mesh, other, key=merge_order)


def alarm(mine: MeshSummary, other: MeshSummary, verdict: Verdict) -> str:
    """The alarm for the users of `mine`; "" when there is none."""
    if verdict.action != "alarm":
        return ""
    merged, stays = (mine, other) if verdict.source == mine.id else (other, mine)
    return (
        f"There is another mesh called {mine.name}: {other.id} with {_nodes(other)} and {_tasks(other)} (this one, "
        f"{mine.id}, has {_nodes(mine)} and {_tasks(mine)}). `queztl bus merge` shows what it takes to make them one: "
        f"{merged.id} would be merged into {stays.id}."
    )


def _nodes(summary: MeshSummary) -> str:
    return f"{summary.nodes} node{'' if summary.nodes == 1 else 's'}"


def _tasks(summary: MeshSummary) -> str:
    return f"{summary.unfinished} unfinished task{'' if summary.unfinished == 1 else 's'}"


def explain(merged: MeshSummary, stays: MeshSummary) -> list[str]:
    """What a merge does: sentences for the person who decides."""
    return [
        f"{merged.id} ({_nodes(merged)}, {_tasks(merged)}, {_age(merged)} old) is merged into {stays.id} "
        f"({_nodes(stays)}, {_tasks(stays)}, {_age(stays)} old).",
        f"Its nodes finish what they run (for half a minute) and join {stays.id}. Its {_tasks(merged)}, results, dead "
        "letters, blobs and idempotency keys are moved, each removed only after the other mesh has it; meanwhile it "
        "accepts no new work.",
        "Its journal and load history stay in its old store, which is kept aside on the machines that ran its bus.",
    ]


def _age(summary: MeshSummary) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if summary.age_s >= seconds:
            return f"{summary.age_s / seconds:.0f} {unit}"
    return f"{summary.age_s:.0f} s"
