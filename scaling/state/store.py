"""The scaler's part of the mesh: policy, orders, memory and status in KV `scaling`, its journal in stream EVENTS.

Everything that decides about money is written over the revision that was read. The bus refuses the write of a leader
that has been superseded (WrongSequence), whatever that leader believes. Every method raises BusUnavailable.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from mesh import coordination, decoding, messages, subjects
from mesh.bus.client import Bus
from mesh.bus.errors import WrongSequence
from mesh.decoding import Unreadable, readable, readable_of
from mesh.errors import NotFound
from scaling.state import settings as policies
from scaling.state.memory import State, decode_state, encode_state
from scaling.state.orders import Intent, decode_intent, encode_intent
from scaling.state.settings import ManualTarget, Panic, Policy

#: How many of the last decisions are listed; older ones are found by their number in the journal.
DECISIONS_LISTED = 200
#: How many versions of the policy are kept.
VERSIONS_KEPT = 100
#: Lifetime of the delete marker of an order that is over, seconds.
MARKER_TTL_S = 3600
DECIDED = "scaling.decided"


class Store:
    """KV `scaling` and the scaler's part of EVENTS."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self.kv = bus, bus.kv(subjects.KV_SCALING)
        self.clock = bus.clock(f"KV_{subjects.KV_SCALING}")
        """What people and leaders set the times of orders, targets and windows by."""
        self._revisions: dict[str, int] = {}

    # --- what people set ----------------------------------------------------------------------------
    async def policy(self) -> Policy | None:
        """The policy in force; None when none was ever set."""
        entry = await self.kv.get(subjects.SCALING_POLICY)
        return readable(policies.decode_policy, entry)

    async def put_policy(self, before: Policy | None, after: Policy) -> None:
        """Store a new version over the version it was made from. Raises: WrongSequence, when that is not in force."""
        entry = await self.kv.get(subjects.SCALING_POLICY)
        in_force = readable(policies.decode_policy, entry)
        current = in_force.version if in_force else 0
        if current != (before.version if before else 0):
            raise WrongSequence(f"the policy is at version {current} by now; read it again")
        written = policies.encode(after)
        await self.kv.update(subjects.SCALING_POLICY, written, last=entry.revision if entry else 0)
        await self.kv.put(subjects.scaling_version(after.version), written)
        if after.version > VERSIONS_KEPT:
            await self.kv.delete(subjects.scaling_version(after.version - VERSIONS_KEPT))
        await self.emit("scaling.policy", msgspec.to_builtins(after), after.node)

    async def versions(self) -> list[Policy]:
        """The versions of the policy that are kept, the newest first."""
        found = readable_of(policies.decode_policy, await self.kv.entries(subjects.SCALING_POLICIES))
        return sorted(found, key=lambda policy: -policy.version)

    async def manual_target(self) -> ManualTarget | None:
        """The number of nodes set by hand, expired or not; None when none is set."""
        entry = await self.kv.get(subjects.SCALING_MANUAL)
        return readable(policies.decode_manual, entry)

    async def put_manual_target(self, manual: ManualTarget) -> None:
        """Replace the number of nodes set by hand."""
        await self.kv.put(subjects.SCALING_MANUAL, policies.encode(manual))
        await self.emit("scaling.manual", msgspec.to_builtins(manual))

    async def clear_manual_target(self) -> None:
        """Return to what is observed and forecast."""
        await self.kv.delete(subjects.SCALING_MANUAL)
        await self.emit("scaling.manual", {"cleared": True})

    async def panic(self) -> Panic | None:
        """The panic in force; None when everything paid may run. One that can't be read is in force: it saves money."""
        entry = await self.kv.get(subjects.SCALING_PANIC)
        return (readable(policies.decode_panic, entry) or Panic(at=0.0)) if entry else None

    async def put_panic(self, on: bool, now: float) -> None:
        """Stop everything paid, or allow it again."""
        if on:
            await self.kv.put(subjects.SCALING_PANIC, policies.encode(Panic(at=now)))
        elif await self.kv.get(subjects.SCALING_PANIC):
            await self.kv.delete(subjects.SCALING_PANIC)
        await self.emit("scaling.panic", {"on": on})

    # --- orders -------------------------------------------------------------------------------------
    async def intents(self) -> list[Intent]:
        """Every order that is not over, as the leader of the bucket's stream knows them."""
        # Any replica answers `entries`, and one that lags would hide the order that was just stored.
        keys = await self.kv.keys_at_leader(subjects.SCALING_INTENTS)
        entries = await asyncio.gather(*(self.kv.get(key) for key in keys))
        found = [entry for entry in entries if entry is not None]
        for entry in found:  # the launch of an order may have updated it while this was read
            self._revisions[entry.key] = max(entry.revision, self._revisions.get(entry.key, 0))
        return readable_of(decode_intent, found)

    def knows(self, token: str) -> bool:
        """Whether this store has read or written that order."""
        return subjects.scaling_intent(token) in self._revisions

    async def create(self, intent: Intent) -> None:
        """Store a new order, before its provider is called. Raises: WrongSequence, when the token is taken."""
        key = subjects.scaling_intent(intent.token)
        self._revisions[key] = await self.kv.create(key, encode_intent(intent))

    async def update(self, intent: Intent) -> None:
        """Store a change of an order, over its last revision here. Raises: WrongSequence."""
        key = subjects.scaling_intent(intent.token)
        last = self._revisions.get(key, 0)
        self._revisions[key] = await self.kv.update(key, encode_intent(intent), last=last)

    async def forget(self, token: str) -> None:
        """Delete an order that is over. Raises: WrongSequence."""
        key = subjects.scaling_intent(token)
        # With a lifetime: every token is another key, and its delete marker would stay forever.
        await self.kv.delete(key, last=self._revisions.pop(key, None), marker_ttl_s=MARKER_TTL_S)

    # --- memory and status --------------------------------------------------------------------------
    async def state(self) -> State:
        """The last leader's state; an empty one when it can't be decoded (another version wrote it)."""
        entry = await self.kv.get(subjects.SCALING_STATE)
        self._revisions[subjects.SCALING_STATE] = entry.revision if entry else 0
        return readable(decode_state, entry) or State()

    async def put_state(self, state: State) -> None:
        """Store the state over the revision that was read. Raises: WrongSequence, when another leader wrote since."""
        key = subjects.SCALING_STATE
        self._revisions[key] = await self.kv.update(key, encode_state(state), last=self._revisions.get(key, 0))

    async def put_status(self, status: dict[str, Any]) -> None:
        """Publish what was last observed and decided."""
        await self.kv.put(subjects.SCALING_STATUS, messages.encode(status))

    async def status(self) -> dict[str, Any] | None:
        """What the leader last published; None before it ever did."""
        entry = await self.kv.get(subjects.SCALING_STATUS)
        return readable(decoding.facts, entry)

    # --- the journal --------------------------------------------------------------------------------
    async def emit(self, type_: str, detail: dict[str, Any], node: str = "", fence: int = 0) -> int:
        """Append one event to the journal; returns its number there."""
        event = coordination.MeshEvent(type=type_, at=time.time(), node=node, fence=fence, detail=detail)
        return await self._bus.store(subjects.event(type_), messages.encode(event))

    async def decision(self, number: int) -> dict[str, Any]:
        """The journaled decision of that number. Raises: NotFound."""
        stored = await self._bus.read_at(subjects.EVENTS, number)
        event = decoding.event(stored.data) if stored is not None else None
        if event is None or isinstance(event, Unreadable) or event.type != DECIDED:
            raise NotFound(f"the journal has no decision {number}, or no longer has it")
        return {"id": number, "node": event.node, "fence": event.fence, **event.detail}

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        """The last decisions, at most `limit`, the newest first."""
        entry = await self.kv.get(subjects.SCALING_STATE)
        numbers = (readable(decode_state, entry) or State()).decisions
        found: list[dict[str, Any]] = []
        for number in reversed(numbers[-limit:] if limit else ()):
            try:
                found.append(await self.decision(number))
            except NotFound:
                break  # the journal keeps only the newest events
        return found
