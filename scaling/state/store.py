"""What the scaler keeps in the mesh: policy, orders, memory, status (KV `scaling`) and its journal (stream EVENTS).

Everything that decides about money is written over the revision that was read: a master that has been overtaken is
refused by the bus (WrongSequence), whatever it believes. Every method raises BusUnavailable.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from mesh import coordination, messages, subjects
from mesh.bus.errors import WrongSequence
from mesh.errors import NotFound
from scaling.state import settings as policies
from scaling.state.memory import State, decode_state, encode_state
from scaling.state.orders import Intent, decode_intent, encode_intent
from scaling.state.settings import Manual, Panic, Policy

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: Decisions are found again by their number; so many of the last ones are listed.
REMEMBERED = 200
#: So many versions of the policy are kept.
VERSIONS = 100
#: The mark of an order that is over is gone after this long, seconds.
MARK_S = 3600
DECIDED = "scaling.decided"


class Store:
    """KV `scaling` and the scaler's part of EVENTS."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self.kv = bus, bus.kv(subjects.KV_SCALING)
        self._revisions: dict[str, int] = {}

    # --- what people say ----------------------------------------------------------------------------
    async def policy(self) -> Policy | None:
        """The one in force; None: nobody ever gave one."""
        entry = await self.kv.get(subjects.SCALING_POLICY)
        return policies.decode_policy(entry.value) if entry else None

    async def put_policy(self, before: Policy | None, after: Policy) -> None:
        """Only over the version it was made from. Raises: WrongSequence."""
        entry = await self.kv.get(subjects.SCALING_POLICY)
        there = policies.decode_policy(entry.value).version if entry else 0
        if there != (before.version if before else 0):
            raise WrongSequence(f"the policy is at version {there} by now; look at it again")
        written = policies.encode(after)
        await self.kv.update(subjects.SCALING_POLICY, written, last=entry.revision if entry else 0)
        await self.kv.put(subjects.scaling_version(after.version), written)
        if after.version > VERSIONS:
            await self.kv.delete(subjects.scaling_version(after.version - VERSIONS))
        await self.emit("scaling.policy", msgspec.to_builtins(after), after.node)

    async def versions(self) -> list[Policy]:
        """Those that are kept, the newest first."""
        found = [policies.decode_policy(one.value) for one in await self.kv.entries(subjects.SCALING_POLICIES)]
        return sorted(found, key=lambda one: -one.version)

    async def manual(self) -> Manual | None:
        """What a person asked for, if it was not taken back."""
        entry = await self.kv.get(subjects.SCALING_MANUAL)
        return policies.decode_manual(entry.value) if entry else None

    async def put_manual(self, wish: Manual) -> None:
        """Replaces what was asked for before."""
        await self.kv.put(subjects.SCALING_MANUAL, policies.encode(wish))
        await self.emit("scaling.manual", msgspec.to_builtins(wish))

    async def clear_manual(self) -> None:
        """Nothing is asked for by hand any more."""
        await self.kv.delete(subjects.SCALING_MANUAL)
        await self.emit("scaling.manual", {"cleared": True})

    async def panic(self) -> Panic | None:
        """Since when everything paid is stopped; None: it is not."""
        entry = await self.kv.get(subjects.SCALING_PANIC)
        return policies.decode_panic(entry.value) if entry else None

    async def put_panic(self, on: bool, now: float) -> None:
        """Stop everything paid, or allow it again."""
        if on:
            await self.kv.put(subjects.SCALING_PANIC, policies.encode(Panic(at=now)))
        elif await self.kv.get(subjects.SCALING_PANIC):
            await self.kv.delete(subjects.SCALING_PANIC)
        await self.emit("scaling.panic", {"on": on})

    # --- orders -------------------------------------------------------------------------------------
    async def intents(self) -> list[Intent]:
        """Every order that is not over, as the bucket's leader knows them."""
        # Any copy answers `entries`, and one that lags would hide what was just ordered.
        keys = await self.kv.keys_at_leader(subjects.SCALING_INTENTS)
        entries = await asyncio.gather(*(self.kv.get(key) for key in keys))
        there = [entry for entry in entries if entry is not None]
        for entry in there:  # an order that is under way may have been written again while this was read
            self._revisions[entry.key] = max(entry.revision, self._revisions.get(entry.key, 0))
        return [decode_intent(entry.value) for entry in there]

    def knows(self, token: str) -> bool:
        """Whether that order was read or written here."""
        return subjects.scaling_intent(token) in self._revisions

    async def create(self, intent: Intent) -> None:
        """Before its order is given. Raises: WrongSequence, when the token is taken."""
        key = subjects.scaling_intent(intent.token)
        self._revisions[key] = await self.kv.create(key, encode_intent(intent))

    async def update(self, intent: Intent) -> None:
        """Over what was last read or written here. Raises: WrongSequence."""
        key = subjects.scaling_intent(intent.token)
        last = self._revisions.get(key, 0)
        self._revisions[key] = await self.kv.update(key, encode_intent(intent), last=last)

    async def forget(self, token: str) -> None:
        """It is over. Raises: WrongSequence."""
        key = subjects.scaling_intent(token)
        # With a lifetime: every token is another key, and the mark that it is gone would stay for ever.
        await self.kv.delete(key, last=self._revisions.pop(key, None), marker_ttl_s=MARK_S)

    # --- what is remembered -------------------------------------------------------------------------
    async def state(self) -> State:
        """As left by whoever was master; an empty one when it can't be read (another version wrote it)."""
        entry = await self.kv.get(subjects.SCALING_STATE)
        self._revisions[subjects.SCALING_STATE] = entry.revision if entry else 0
        try:
            return decode_state(entry.value) if entry else State()
        except msgspec.MsgspecError:
            return State()

    async def put_state(self, state: State) -> None:
        """Raises: WrongSequence, when another master wrote meanwhile."""
        key = subjects.SCALING_STATE
        self._revisions[key] = await self.kv.update(key, encode_state(state), last=self._revisions.get(key, 0))

    async def put_status(self, status: dict[str, Any]) -> None:
        """What was last seen and decided."""
        await self.kv.put(subjects.SCALING_STATUS, messages.encode(status))

    async def status(self) -> dict[str, Any] | None:
        """As the master wrote it; None before it ever did."""
        entry = await self.kv.get(subjects.SCALING_STATUS)
        return dict(messages.decode_any(entry.value)) if entry else None

    # --- the journal --------------------------------------------------------------------------------
    async def emit(self, type_: str, detail: dict[str, Any], node: str = "", fence: int = 0) -> int:
        """One event; its number in the journal."""
        event = coordination.MeshEvent(type=type_, at=time.time(), node=node, fence=fence, detail=detail)
        return await self._bus.store(subjects.event(type_), messages.encode(event))

    async def decision(self, number: int) -> dict[str, Any]:
        """A journaled decision, by its number. Raises: NotFound."""
        stored = await self._bus.read_at(subjects.EVENTS, number)
        try:
            event = coordination.decode_event(stored.data) if stored is not None else None
        except msgspec.MsgspecError:
            event = None
        if event is None or event.type != DECIDED:
            raise NotFound(f"the journal has no decision {number} (any more)")
        return {"id": number, "node": event.node, "fence": event.fence, **event.detail}

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        """The last ones, the newest first."""
        entry = await self.kv.get(subjects.SCALING_STATE)
        numbers = decode_state(entry.value).decisions if entry else ()
        found = []
        for number in reversed(numbers[-limit:] if limit else ()):
            try:
                found.append(await self.decision(number))
            except NotFound:
                break  # the journal keeps the newest only
        return found
