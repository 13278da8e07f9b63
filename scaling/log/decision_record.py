"""A decision as it is written down: all that it was made from, so that anybody can make it again. Pure.

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

VERSION = 1


@dataclass(frozen=True)
class Inputs:
    """What `decide` was given."""

    observation: Observation
    forecast: Mapping[str, Forecast]
    offers: tuple[Offer, ...]
    config: ScalingConfig
    memory: Memory
    now: float


def document(made: Decision, inputs: Inputs, policy_version: int, notes: Sequence[str]) -> dict[str, Any]:
    """The decision for the journal."""
    return {
        "version": VERSION,
        "at": made.at,
        "policy": policy_version,
        "pools": [pool_document(one) for one in made.pools],
        "running_usd_h": made.running_usd_h,
        "launched_usd_h": made.launched_usd_h,
        "notes": list(notes),
        "from": msgspec.to_builtins(inputs),
    }


def pool_document(one: PoolDecision) -> dict[str, Any]:
    """One pool's part, for people and programs."""
    return {
        "pool": one.pool,
        "have": one.have,
        "target": one.target,
        "launches": [launch._asdict() for launch in one.launches],
        "drains": list(one.drains),
        "ends": list(one.ends),
        "proposals": [proposal._asdict() for proposal in one.proposals],
        "trail": list(one.trail),
    }


def replay(written: Mapping[str, Any]) -> tuple[Decision, bool]:
    """(the decision made again from what it was made from, whether it is the one that was written).

    Raises: BadInput, when the document is of another version.
    """
    try:
        inputs = msgspec.convert(_without_nulls(written["from"]), Inputs)
    except (msgspec.ValidationError, KeyError, ValueError) as error:
        raise BadInput(f"that decision was written by another version and can't be made again: {error}") from None
    made, _ = decide(
        inputs.observation, inputs.forecast, inputs.offers, inputs.config, inputs.memory, inputs.now
    )  # fmt: skip
    same = [pool_document(one) for one in made.pools] == list(written["pools"])
    return made, same


def _without_nulls(value: Any) -> Any:
    """JSON has no infinity and says null; what is infinite (no limit, never) is so by default."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value


def essence(made: Decision) -> tuple[Any, ...]:
    """What of a decision is news: when it changes, the decision is journaled at once."""
    return tuple(
        (one.pool, one.have, one.target, max(one.proposals, key=lambda each: each.nodes).policy) for one in made.pools
    )


def acts(made: Decision) -> bool:
    """Whether anything follows from it."""
    return any(one.launches or one.drains for one in made.pools)
