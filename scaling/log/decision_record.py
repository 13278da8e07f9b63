"""A decision as it is journaled: with all its inputs, so that anybody can replay it. Pure.

The document is plain data. What a person reads (`pools`) stands beside what `replay` needs (`from`), where named tuples
are lists in the order of their fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mesh.errors import BadInput
from scaling.decision.decide import decide
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Decision, Forecast, Memory, Observation, Offer, PoolDecision

#: Raised when a field of the inputs gets another name or meaning.
VERSION = 2


@dataclass(frozen=True)
class Inputs:
    """The arguments of `decide`."""

    observation: Observation
    forecast: Mapping[str, Forecast]
    offers: tuple[Offer, ...]
    config: ScalingConfig
    memory: Memory
    now: float


def document(decision: Decision, inputs: Inputs, policy_version: int, notes: Sequence[str]) -> dict[str, Any]:
    """The decision for the journal."""
    return {
        "version": VERSION,
        "at": decision.at,
        "policy": policy_version,
        "pools": [pool_document(pool) for pool in decision.pools],
        "running_usd_h": decision.running_usd_h,
        "launched_usd_h": decision.launched_usd_h,
        "notes": list(notes),
        "from": msgspec.to_builtins(inputs),
    }


def pool_document(decided: PoolDecision) -> dict[str, Any]:
    """The decision about one pool, for people and programs."""
    return {
        "pool": decided.pool,
        "have": decided.have,
        "target": decided.target,
        "launches": [launch._asdict() for launch in decided.launches],
        "drains": list(decided.drains),
        "ends": list(decided.ends),
        "proposals": [proposal._asdict() for proposal in decided.proposals],
        "trail": list(decided.trail),
    }


def replay(written: Mapping[str, Any]) -> tuple[Decision, bool]:
    """(the decision made again from the journaled inputs, whether it is the journaled one).

    Raises: BadInput, when the document is of another version.
    """
    try:
        if written["version"] != VERSION:
            raise ValueError(f"the record has version {written['version']}, this is version {VERSION}")
        inputs = msgspec.convert(_without_nulls(written["from"]), Inputs)
    except (msgspec.ValidationError, KeyError, ValueError) as error:
        raise BadInput(f"the decision was written by another version and can't be replayed: {error}") from None
    decision, _ = decide(inputs.observation, inputs.forecast, inputs.offers, inputs.config, inputs.memory, inputs.now)
    same = [pool_document(pool) for pool in decision.pools] == list(written["pools"])
    return decision, same


def _without_nulls(value: Any) -> Any:
    """JSON writes infinity as null; every setting and time that can be infinite is so by default."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value


def fingerprint(decision: Decision) -> tuple[Any, ...]:
    """The part of a decision that is news: when it changes, the decision is journaled at once."""
    return tuple(
        (pool.pool, pool.have, pool.target, max(pool.proposals, key=lambda proposal: proposal.nodes).policy)
        for pool in decision.pools
    )


def has_effect(decision: Decision) -> bool:
    """Whether it starts or drains a node."""
    return any(pool.launches or pool.drains for pool in decision.pools)
