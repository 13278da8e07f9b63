"""What the controller looks at before it decides: providers' lists and offers, orders, lanes, members.

Providers are asked at the same time and for a limited time each: one that hangs or fails leaves a note, and what it
might have told counts as unknown, never as nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mesh import subjects
from mesh.bus.streams import list_lanes
from mesh.coordination import decode_pool
from mesh.scheduling.geo import places as places_of
from scaling.decision import launch_guard
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Offer
from scaling.observation import throughput
from scaling.observation.mesh_access import MeshAccess
from scaling.observation.observe import Facts, Flow, PoolSnapshot, flow, observe
from scaling.observation.reconcile import Listing, Reconciled, reconcile
from scaling.providers.base import Provider
from scaling.providers.calls import call
from scaling.state import settings as policy
from scaling.state.memory import State, handed_over
from scaling.state.store import Store


@dataclass
class Cycle:
    """What one look saw."""

    policy: policy.Policy
    config: ScalingConfig
    """The settings in force, with what a person asked for by hand."""
    now: float
    state: State
    found: Reconciled
    seen: PoolSnapshot
    offers: tuple[Offer, ...]
    notes: list[str]
    panic: bool


class Collector:
    """The looks of one term as master."""

    def __init__(self, world: MeshAccess, store: Store, clock: Callable[[], float]) -> None:
        self._world, self._store, self._clock = world, store, clock
        self._since = clock()
        self._flow, self._first = Flow(), True

    async def look(self, given: policy.Policy) -> Cycle:
        """Everything, now. Raises: BusUnavailable, BadInput when the policy is not valid."""
        world, store, notes = self._world, self._store, list[str]()
        config, now = policy.config_of(given), self._clock()
        state = await store.state()
        if self._first:
            state, self._first = handed_over(state, config, now), False
        # Lists first, orders after: whatever is listed had its order written before.
        listings = await self._listings(config.call_timeout_s, notes)
        intents, members = await store.intents(), world.members()
        places = {name: one.place for name, one in world.providers.items()}
        found = reconcile(intents, listings, members, places, self._since, config, now)
        manual, panic, lanes = await asyncio.gather(store.manual(), store.panic(), list_lanes(world.bus))
        self._flow = flow(self._flow, lanes, config.load_window_s, now)
        known = throughput.measured(state.speeds, members, found.intents, world.resources)
        state = msgspec.structs.replace(state, speeds=known)
        offers = await self._offers(config, state, notes)
        offers = self._permitted(policy.allowed(offers, manual, now), panic is not None, notes)
        facts = Facts(lanes, await self._requires(lanes), world.resources, members, found.intents, world.me)
        seen = observe(facts, self._flow, offers)
        held, by_hand = policy.effective(config, manual, now)
        held = replace(held, places={**places_of(members), **held.places})
        notes += [*seen.notes, *([by_hand] if by_hand else [])]
        return Cycle(given, held, now, state, found, seen, offers, notes, panic is not None)

    async def _listings(self, limit_s: float, notes: list[str]) -> dict[str, Listing]:
        async def ask(name: str, provider: Provider) -> tuple[str, Listing] | None:
            there = await call(provider.list(self._world.mesh[0]), limit_s, f"{name}'s list", notes)
            return None if there is None else (name, Listing(provider.place, there))

        answers = await asyncio.gather(*(ask(name, one) for name, one in self._world.providers.items()))
        return dict(one for one in answers if one is not None)

    async def _offers(self, config: ScalingConfig, state: State, notes: list[str]) -> tuple[Offer, ...]:
        there = self._world.providers
        notes += [f"there is no provider {name} on this node" for name in config.providers if name not in there]
        asked = [(name, there[name]) for name in config.providers if name in there]
        answers = await asyncio.gather(
            *(call(one.offers(), config.call_timeout_s, f"{name}'s offers", notes) for name, one in asked)
        )
        offers = [offer for some in answers if some is not None for offer in some]
        measured = throughput.of_pools(state.speeds, self._world.resources)
        return tuple(
            replace(one, start_s=state.starts_s.get(one.id, one.start_s), speed=measured.get(one.id, {}))
            for one in offers
        )

    def _permitted(self, offers: tuple[Offer, ...], panic: bool, notes: list[str]) -> tuple[Offer, ...]:
        """Without those that the wall would refuse whatever else holds."""
        why = launch_guard.paid_refusal(self._world.has_key, panic)
        paid = [one for one in offers if self._world.providers[one.provider].paid]
        if not why or not paid:
            return offers
        notes.append(f"{', '.join(sorted({one.provider for one in paid}))}: {why}")
        return tuple(one for one in offers if one not in paid)

    async def _requires(self, lanes: Mapping[tuple[str, str, str], Any]) -> dict[str, dict[str, Any]]:
        if not any(pool.startswith("p-") for _, pool, _ in lanes):
            return {}
        entries = await self._world.bus.kv(subjects.KV_POOLS).entries()
        return {entry.key: decode_pool(entry.value).requires for entry in entries}
