"""Collects what a control cycle is based on: the providers' lists and offers, orders, lanes and members.

All providers are called at the same time, each with a time limit. A provider that hangs or fails leaves a note, and
what its answer would have shown counts as unknown, never as absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mesh import decoding, subjects
from mesh.bus.streams import list_every_lane
from mesh.decoding import readable_of
from mesh.lanes import Lane
from mesh.scheduling.geo import places as places_of
from scaling.decision import launch_guard
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Offer
from scaling.observation import throughput
from scaling.observation.mesh_access import MeshAccess
from scaling.observation.observe import ArrivalWindow, Facts, PoolSnapshot, count_arrivals, observe
from scaling.observation.reconcile import Listing, Reconciled, reconcile
from scaling.providers.base import Provider
from scaling.providers.calls import call
from scaling.state import settings
from scaling.state.memory import State, handed_over
from scaling.state.store import Store


@dataclass
class Cycle:
    """One control cycle: what was collected for it."""

    policy: settings.Policy
    config: ScalingConfig
    """The settings in force, a manual target applied."""
    now: float
    state: State
    reconciled: Reconciled
    snapshot: PoolSnapshot
    offers: tuple[Offer, ...]
    notes: list[str]
    panic: bool


class Collector:
    """Collects the cycles of one term as leader."""

    def __init__(self, mesh: MeshAccess, store: Store, clock: Callable[[], float]) -> None:
        self._mesh, self._store, self._clock = mesh, store, clock
        self._term_began_at = clock()
        self._arrivals, self._is_first = ArrivalWindow(), True

    async def collect(self, policy: settings.Policy) -> Cycle:
        """Everything, now. Raises: BusUnavailable, BadInput when the policy is not valid."""
        mesh, store, notes = self._mesh, self._store, list[str]()
        config, now = settings.config_of(policy), self._clock()
        state = await store.state()
        if self._is_first:
            state, self._is_first = handed_over(state, config, now), False
        # The lists before the orders: then every listed instance has had its order stored before.
        listings = await self._listings(config.call_timeout_s, notes)
        intents, members = await store.intents(), mesh.members()
        places = {name: provider.place for name, provider in mesh.providers.items()}
        reconciled = reconcile(intents, listings, members, places, self._term_began_at, config, now)
        manual, panic, lanes = await asyncio.gather(store.manual_target(), store.panic(), list_every_lane(mesh.bus))
        self._arrivals = count_arrivals(self._arrivals, lanes, config.load_window_s, now)
        speeds = throughput.update_speeds(state.speeds, members, reconciled.intents, mesh.resources)
        state = msgspec.structs.replace(state, speeds=speeds)
        offers = await self._offers(config, state, notes)
        offers = self._permitted(settings.allowed(offers, manual, now), panic is not None, notes)
        requires = await self._requires(lanes)
        facts = Facts(lanes, requires, mesh.resources, members, reconciled.intents, mesh.node_id)
        snapshot = observe(facts, self._arrivals, offers)
        config, manual_note = settings.effective(config, manual, now)
        config = replace(config, places={**places_of(members), **config.places})
        notes += [*snapshot.notes, *([manual_note] if manual_note else [])]
        return Cycle(policy, config, now, state, reconciled, snapshot, offers, notes, panic is not None)

    async def _listings(self, limit_s: float, notes: list[str]) -> dict[str, Listing]:
        async def ask(name: str, provider: Provider) -> tuple[str, Listing] | None:
            instances = await call(provider.list(self._mesh.mesh_id), limit_s, f"{name}'s list", notes)
            return None if instances is None else (name, Listing(provider.place, instances))

        answers = await asyncio.gather(*(ask(name, provider) for name, provider in self._mesh.providers.items()))
        return dict(answer for answer in answers if answer is not None)

    async def _offers(self, config: ScalingConfig, state: State, notes: list[str]) -> tuple[Offer, ...]:
        present = self._mesh.providers
        notes += [f"this node has no provider {name}" for name in config.providers if name not in present]
        answers = await asyncio.gather(
            *(
                call(present[name].offers(), config.call_timeout_s, f"{name}'s offers", notes)
                for name in config.providers
                if name in present
            )
        )
        offers = [offer for answer in answers if answer is not None for offer in answer]
        speeds = throughput.pool_speeds(state.speeds, self._mesh.resources)
        return tuple(
            replace(offer, start_s=state.starts_s.get(offer.id, offer.start_s), speed=speeds.get(offer.id, {}))
            for offer in offers
        )

    def _permitted(self, offers: tuple[Offer, ...], panic: bool, notes: list[str]) -> tuple[Offer, ...]:
        """Without the paid offers where the launch guard refuses all of them."""
        why = launch_guard.paid_refusal(self._mesh.has_key, panic)
        paid = [offer for offer in offers if self._mesh.providers[offer.provider].paid]
        if not why or not paid:
            return offers
        notes.append(f"{', '.join(sorted({offer.provider for offer in paid}))}: {why}")
        return tuple(offer for offer in offers if offer not in paid)

    async def _requires(self, lanes: Mapping[Lane, Any]) -> dict[str, dict[str, Any]]:
        """pool of lanes -> what it requires"""
        if not any(pool.startswith("p-") for _, pool, _ in lanes):
            return {}
        entries = await self._mesh.bus.kv(subjects.KV_POOLS).entries()
        return {pool.name: pool.requires for pool in readable_of(decoding.pool, entries)}
