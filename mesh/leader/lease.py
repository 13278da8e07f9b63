"""Leader election by a lease: decisions about the lease key that use only the local clock. Pure.

A contender considers the lease void only if it has seen the same revision for longer than the TTL on its own monotonic
clock. The holder steps down at two thirds of the TTL, so the old leader stops before a new one starts. The revision at
which a term was won is its fencing number: no later term can have a lower one. `mesh/leader/election.py` is the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.config import MeshConfig


@dataclass(frozen=True)
class LeaseObservation:
    """The lease key as last read. An absent key has no holder."""

    revision: int = 0
    node: str = ""
    incarnation: str = ""
    since: float = 0.0
    """When this revision was first seen, on the reader's monotonic clock."""


@dataclass(frozen=True)
class Term:
    """This node's own term as leader, as far as it can prove it."""

    fence: int
    """The revision at which the term was won."""
    revision: int
    """The revision of the last renewal."""
    renewed_at: float
    """When the last successful renewal was *sent*, on the local monotonic clock."""


@dataclass(frozen=True)
class Create:
    """The key is absent: create it."""


@dataclass(frozen=True)
class Renew:
    """This node's lease is due for renewal: write it over `revision`."""

    revision: int


@dataclass(frozen=True)
class TakeOver:
    """The lease is void: write it over `revision`."""

    revision: int
    reason: str


@dataclass(frozen=True)
class StandBy:
    """Nothing to do before `until` (monotonic), unless a change is reported earlier."""

    until: float


@dataclass(frozen=True)
class StepDown:
    """Stop being leader, now."""

    reason: str


Action = Create | Renew | TakeOver | StandBy | StepDown


def observe(before: LeaseObservation, revision: int, node: str, incarnation: str, now: float) -> LeaseObservation:
    """The observation after a read at `now`; an absent key has revision 0 and no node."""
    if before.revision == revision and before.node == node and before.incarnation == incarnation:
        return before
    return LeaseObservation(revision=revision, node=node, incarnation=incarnation, since=now)


def self_stop_at(term: Term, config: MeshConfig) -> float:
    """When (monotonic) a holder that can't renew its lease steps down."""
    return term.renewed_at + config.lease_ttl_s * 2 / 3


def is_held(term: Term | None, config: MeshConfig, now: float) -> bool:
    """Whether a leader may still act. Also false right after the process was suspended, before any loop has run."""
    return term is not None and now < self_stop_at(term, config)


def decide(
    seen: LeaseObservation,
    term: Term | None,
    me: tuple[str, str],
    holder_gone: bool,
    config: MeshConfig,
    now: float,
) -> Action:
    """The next action of node `me` (id, incarnation).

    `term` is set while this node is leader. `holder_gone`: the holder in `seen` has neither heartbeats nor a
    connection, or has been replaced by a newer incarnation.
    """
    if term is not None:
        return _as_holder(seen, term, me, config, now)
    if not seen.node:
        return Create()
    if (seen.node, seen.incarnation) == me:
        # The answer to this node's own write was lost, or it has stepped down: no other node has its incarnation.
        return TakeOver(seen.revision, "it is in this node's name")
    if holder_gone:
        return TakeOver(seen.revision, f"{seen.node} is gone")
    void_at = seen.since + config.lease_ttl_s
    if now > void_at:
        return TakeOver(seen.revision, f"{seen.node} has not renewed it for {config.lease_ttl_s:g} s")
    return StandBy(min(void_at, now + config.lease_renew_s / 2))


def _as_holder(seen: LeaseObservation, term: Term, me: tuple[str, str], config: MeshConfig, now: float) -> Action:
    if now >= self_stop_at(term, config):
        return StepDown("the lease could not be renewed in time")
    if seen.revision > term.revision and (seen.node, seen.incarnation) != me:
        return StepDown(f"{seen.node or 'nobody'} holds the lease now")
    if not seen.node and seen.since > term.renewed_at:
        return StepDown("the lease was deleted")
    due = term.renewed_at + config.lease_renew_s
    # A renewal whose answer was lost has a later revision than this node knows of.
    return Renew(max(seen.revision, term.revision)) if now >= due else StandBy(due)
