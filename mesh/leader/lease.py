"""Who is master: the decision about the lease key, without a clock of anybody else.

A contender judges staleness only by "the same revision for longer than the TTL on my own monotonic clock";
the holder stops itself at two thirds of the TTL, so the old master has stopped before a new one starts. The
revision at which a term was won is its fencing number: no later term can have a lower one. This file decides
and does nothing; `mesh/leader/election.py` is its loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.config import MeshConfig


@dataclass(frozen=True)
class LeaseObservation:
    """The lease key as last read. An absent key or an empty value has no holder."""

    revision: int = 0
    node: str = ""
    incarnation: str = ""
    since: float = 0.0
    """When this revision was first seen, on the reader's monotonic clock."""


@dataclass(frozen=True)
class Term:
    """My own reign, as far as I can prove it."""

    fence: int
    """The revision at which it was won."""
    revision: int
    """The revision of the last renewal."""
    renewed_at: float
    """When the last successful renewal was *sent*, on my monotonic clock."""


@dataclass(frozen=True)
class Create:
    """The key is absent: make it."""


@dataclass(frozen=True)
class Renew:
    """Mine and due: write it again, if it is still at `revision`."""

    revision: int


@dataclass(frozen=True)
class TakeOver:
    """Void: write it, if it is still at `revision`."""

    revision: int
    reason: str


@dataclass(frozen=True)
class StandBy:
    """Nothing to do before `until` (monotonic), unless something is heard before."""

    until: float


@dataclass(frozen=True)
class StepDown:
    """Stop being master, now."""

    reason: str


Action = Create | Renew | TakeOver | StandBy | StepDown


def observe(before: LeaseObservation, revision: int, node: str, incarnation: str, now: float) -> LeaseObservation:
    """What is known after a read at `now`; an absent key is revision 0 and no node."""
    if before.revision == revision and before.node == node and before.incarnation == incarnation:
        return before
    return LeaseObservation(revision=revision, node=node, incarnation=incarnation, since=now)


def self_stop_at(term: Term, config: MeshConfig) -> float:
    """The moment (monotonic) at which a holder that could not renew stops itself."""
    return term.renewed_at + config.lease_ttl_s * 2 / 3


def is_held(term: Term | None, config: MeshConfig, now: float) -> bool:
    """Whether a master may still act: also false right after waking from a freeze, before any loop ran."""
    return term is not None and now < self_stop_at(term, config)


def decide(
    seen: LeaseObservation,
    term: Term | None,
    me: tuple[str, str],
    holder_gone: bool,
    config: MeshConfig,
    now: float,
) -> Action:
    """What node `me` (id, incarnation) does about the lease.

    `term` is set while I am master. `holder_gone`: both the beats and the connection of the holder named in
    `seen` are gone, or a newer incarnation of it lives.
    """
    if term is not None:
        return _as_holder(seen, term, me, config, now)
    if not seen.node:
        return Create()
    if (seen.node, seen.incarnation) == me:
        # The answer to my own write was lost, or I stopped myself: nobody else carries this incarnation.
        return TakeOver(seen.revision, "it is in my name")
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
    # A renewal whose answer was lost stands in my name at a later revision than I know of.
    return Renew(max(seen.revision, term.revision)) if now >= due else StandBy(due)
