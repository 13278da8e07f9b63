"""What people ask of the scaler and tell it, on any node: its state, policy, wishes, decisions, and the bill.

The master writes what it saw and decided into the mesh (`status.py`); this reads it, on whichever node is asked, and
writes what people want where the master looks. Answers are plain data, with null where a limit is not set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from mesh.bus.errors import WrongSequence
from mesh.errors import Conflict, Fault, bad_input
from scaling.log.explain import explained
from scaling.log.reports import OFF, bill, is_late, settings_of
from scaling.observation.observe import everything
from scaling.state import settings as policy

if TYPE_CHECKING:
    from scaling.observation.mesh_access import MeshAccess
    from scaling.state.store import Store

_POLICY = ("settings", "enabled", "version")


class ScalingService:
    """The scaler as the API of one node sees it. Every method raises BusUnavailable."""

    def __init__(self, store: Store, world: MeshAccess) -> None:
        self._store, self._world = store, world

    # --- looking ------------------------------------------------------------------------------------
    async def status(self) -> dict[str, Any]:
        """What was last seen and decided, and what is in force."""
        store, now = self._store, time()
        told, given, manual, panic = await asyncio.gather(store.status(), store.policy(), store.manual(), store.panic())
        told = told or {}
        enabled, reason = given is not None and given.enabled, ""
        if given is None:
            reason = "nobody has said how many nodes there may be: give a node --max-nodes, or set a policy"
        elif not enabled:
            reason = f"it was turned off (policy {given.version})"
        elif is_late(told, policy.config_of(given), now):
            reason = "the master has not looked lately; decisions wait until it does"
        state = OFF if not enabled else "waiting" if reason else "on"
        seen = told if enabled and told.get("state") == "on" else {}
        return {
            "state": state,
            "reason": reason,
            "at": seen.get("at"),
            "master": seen.get("master", ""),
            "fence": seen.get("fence", 0),
            "policy": _short(given),
            "manual": _manual(manual, now),
            "panic": panic is not None,
            "pools": seen.get("pools", []),
            "decision": seen.get("decision", []),
            "forecast": _forecasts(seen),
            "offers": seen.get("offers", []),
            "orders": seen.get("orders", []),
            "budget": seen.get("cost"),
            "notes": seen.get("notes", []),
        }

    async def forecast(self) -> dict[str, Any]:
        """What is expected of each pool's load, and whether it may decide."""
        told = await self._store.status() or {}
        return {"at": told.get("at"), "pools": _forecasts(told)}

    async def decisions(self, limit: int) -> dict[str, Any]:
        """The last ones, the newest first, each with its trail; so many at most, from 1."""
        found = await self._store.decisions(limit)
        return {"decisions": [{name: one[name] for name in one if name != "from"} for one in found]}

    async def decision(self, number: int) -> dict[str, Any]:
        """One of them with all it was made from, made again. Raises: NotFound."""
        return explained(await self._store.decision(number))

    async def cost(self) -> dict[str, Any]:
        """What costs money now, today and this month, as the master last counted it."""
        return bill(await self._store.status() or {}, await self._store.panic() is not None)

    # --- the policy ---------------------------------------------------------------------------------
    async def policy(self) -> dict[str, Any]:
        """The one in force, with every setting, and its versions."""
        given = await self._store.policy()
        versions = await self._store.versions()
        return {**_whole(given), "versions": [_whole(one) for one in versions]}

    async def set_policy(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The next version: `settings` over those before (null: back to the default), `enabled`.

        `version`: the one it is meant to follow. Raises: BadInput with every fault, Conflict when it is another one.
        """
        faults = [Fault(str(name)[:64], "is not known here") for name in body if name not in _POLICY]
        settings, enabled, version = body.get("settings", {}), body.get("enabled"), body.get("version")
        if not isinstance(settings, dict):
            faults.append(Fault("settings", "must be an object of settings"))
        if enabled is not None and not isinstance(enabled, bool):
            faults.append(Fault("enabled", "must be true or false"))
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            faults.append(Fault("version", "must be a whole number"))
        if not settings and enabled is None:
            faults.append(Fault("settings", "or enabled must be given"))
        if faults:
            raise bad_input("The policy is not valid", faults)
        before = await self._store.policy() or policy.Policy()
        if version is not None and version != before.version:
            raise Conflict(f"the policy is at version {before.version}, not {version}; look at it again")
        after = policy.changed(before, settings, enabled, policy.BY_HAND, self._world.me, time())
        try:
            await self._store.put_policy(before, after)
        except WrongSequence:
            raise Conflict("the policy was changed in this moment; look at it again") from None
        return _whole(after)

    # --- wishes -------------------------------------------------------------------------------------
    async def set_manual(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """So many nodes for some time, whatever is seen. Raises: BadInput with every fault."""
        now = time()
        intents = {one.token: one for one in await self._store.intents()}
        have = len(everything(self._world.members(), intents))
        given = await self._store.policy() or policy.Policy()
        wish = policy.read_manual(body, have, given, now)
        await self._store.put_manual(wish)
        return {"have": have, **(_manual(wish, now) or {})}

    async def clear_manual(self) -> dict[str, Any]:
        """Back to what is seen and expected; what was wished for until now, if anything."""
        before = await self._store.manual()
        if before is not None:
            await self._store.clear_manual()
        return {"was": _manual(before, time())}

    async def panic(self, on: bool) -> dict[str, Any]:
        """Stop everything paid and start nothing paid, or allow it again."""
        await self._store.put_panic(on, time())
        return {"panic": on}


def _forecasts(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"pool": pool, **one} for pool, one in told.get("forecast", {}).items()]


def _manual(wish: policy.Manual | None, now: float) -> dict[str, Any] | None:
    if wish is None or now >= wish.until:
        return None
    return {"target": wish.target, "until": wish.until, "for_s": wish.until - now, "provider": wish.provider}


def _short(given: policy.Policy | None) -> dict[str, Any]:
    return msgspec.structs.asdict(given or policy.Policy())


def _whole(given: policy.Policy | None) -> dict[str, Any]:
    given = given or policy.Policy()
    return {**_short(given), "effective": settings_of(policy.config_of(given))}
