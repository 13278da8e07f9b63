"""The scaler's API on any node: status, policy, manual target, decisions and cost.

The leader publishes what it observed and decided (`log/status.py`); this module reads it on whichever node is asked,
and writes what people set where the leader reads it. Answers are plain data, with null where no limit is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from mesh.bus.errors import WrongSequence
from mesh.errors import Conflict, Fault, bad_input
from scaling.log.explain import explain
from scaling.log.reports import (
    OFF,
    cost_document,
    effective_settings,
    is_late,
    order_document,
    sums_document,
)
from scaling.observation.mesh_access import MeshAccess
from scaling.observation.observe import all_nodes
from scaling.state import settings
from scaling.state.store import Store

_POLICY = ("settings", "enabled", "version")


class ScalingService:
    """The scaler as the API of one node sees it. Every method raises BusUnavailable."""

    def __init__(self, store: Store, mesh: MeshAccess) -> None:
        self._store, self._mesh = store, mesh

    # --- reading ------------------------------------------------------------------------------------
    async def status(self) -> dict[str, Any]:
        """AutoscalerDoc: what was last observed and decided, and the settings in force."""
        store, now = self._store, await self._store.clock.earliest()
        published, policy, manual, panic, orders, kept = await asyncio.gather(
            store.status(), store.policy(), store.manual_target(), store.panic(), store.intents(), store.state()
        )
        published = published or {}
        enabled, reason = policy is not None and policy.enabled, ""
        if policy is None or not enabled:
            reason = settings.off_reason(policy)
            if orders:
                reason += (
                    f"; {len(orders)} of the nodes that it started run on (`queztl scale policy --on` drains them)"
                )
        elif is_late(published, settings.config_of(policy), now):
            reason = "the leader has not reported lately; no decision is made until it does"
        state = OFF if not enabled else "waiting" if reason else "on"
        is_shown = "pools" in published and published.get("state") == ("on" if enabled else OFF) and (enabled or orders)
        shown: Mapping[str, Any] = published if is_shown else {}
        budget = shown.get("cost")
        if budget is None and policy is not None:
            usd_h = sum(order.price_usd_h for order in orders)
            budget = sums_document(usd_h, kept, settings.config_of(policy), now)
        return {
            "state": state,
            "reason": reason,
            "at": shown.get("at"),
            "master": shown.get("master", ""),
            "fence": shown.get("fence", 0),
            "policy": _policy(policy),
            "manual": _manual(manual, now),
            "panic": panic is not None,
            "pools": shown.get("pools", []),
            "decision": shown.get("decision", []),
            "forecast": _forecasts(shown),
            "offers": shown.get("offers", []),
            "orders": [order_document(order) for order in orders],
            "budget": budget,
            "notes": shown.get("notes", []),
        }

    async def forecast(self) -> dict[str, Any]:
        """ForecastsDoc: the forecast load of each pool, and whether decisions use it."""
        published = await self._store.status() or {}
        return {"at": published.get("at"), "pools": _forecasts(published)}

    async def decisions(self, limit: int) -> dict[str, Any]:
        """The last decisions with their reasons, the newest first. `limit`: how many at most, from 1."""
        found = await self._store.decisions(limit)
        return {"decisions": [{name: value for name, value in each.items() if name != "from"} for each in found]}

    async def decision(self, number: int) -> dict[str, Any]:
        """One decision with all its inputs, replayed. Raises: NotFound."""
        return explain(await self._store.decision(number))

    async def cost(self) -> dict[str, Any]:
        """CostDoc: what costs money now, today and this month, as the leader last counted it."""
        store, now = self._store, await self._store.clock.earliest()
        orders, kept, policy, panic = await asyncio.gather(
            store.intents(), store.state(), store.policy(), store.panic()
        )
        config = settings.config_of(policy or settings.Policy())
        return cost_document(orders, kept, config, panic is not None, now)

    # --- the policy ---------------------------------------------------------------------------------
    async def policy(self) -> dict[str, Any]:
        """The policy in force with every setting, and its versions."""
        policy = await self._store.policy()
        versions = await self._store.versions()
        return {**_full_policy(policy), "versions": [_full_policy(version) for version in versions]}

    async def set_policy(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Set the next version: `settings` over those before (null resets to the default), `enabled`.

        `version`: the one that is to be changed. Raises: BadInput with every fault, Conflict when another is in force.
        """
        faults = [Fault(name[:64], "is not known here") for name in body if name not in _POLICY]
        changes, enabled, version = body.get("settings", {}), body.get("enabled"), body.get("version")
        if not isinstance(changes, dict):
            faults.append(Fault("settings", "must be an object of settings"))
        if enabled is not None and not isinstance(enabled, bool):
            faults.append(Fault("enabled", "must be true or false"))
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            faults.append(Fault("version", "must be a whole number"))
        if not changes and enabled is None:
            faults.append(Fault("settings", "or enabled must be given"))
        if faults:
            raise bad_input("The policy is not valid", faults)
        before = await self._store.policy() or settings.Policy()
        if version is not None and version != before.version:
            raise Conflict(f"the policy is at version {before.version}, not {version}; read it again")
        now = await self._store.clock.earliest()
        after = settings.changed(before, changes, enabled, settings.BY_HAND, self._mesh.node_id, now)
        try:
            await self._store.put_policy(before, after)
        except WrongSequence:
            raise Conflict("the policy was changed at the same moment; read it again") from None
        return _full_policy(after)

    # --- set by hand --------------------------------------------------------------------------------
    async def set_manual(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Set the number of nodes for some time, whatever the load is. Raises: BadInput with every fault."""
        now = await self._store.clock.earliest()
        intents = {intent.token: intent for intent in await self._store.intents()}
        have = len(all_nodes(self._mesh.members(), intents))
        policy = await self._store.policy() or settings.Policy()
        manual = settings.read_manual(body, have, policy, now)
        await self._store.put_manual_target(manual)
        return {"have": have, **(_manual(manual, now) or {})}

    async def clear_manual(self) -> dict[str, Any]:
        """Return to what is observed and forecast; `was`: the target that was in force, or null."""
        before = await self._store.manual_target()
        if before is not None:
            await self._store.clear_manual_target()
        return {"was": _manual(before, await self._store.clock.earliest())}

    async def panic(self, on: bool) -> dict[str, Any]:
        """Stop everything paid and start nothing paid, or allow it again."""
        await self._store.put_panic(on, await self._store.clock.earliest())
        return {"panic": on}


def _forecasts(published: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"pool": pool, **forecast} for pool, forecast in published.get("forecast", {}).items()]


def _manual(manual: settings.ManualTarget | None, now: float) -> dict[str, Any] | None:
    if (manual := settings.in_force(manual, now)) is None:
        return None
    return {
        "target": manual.target, "until": manual.until, "for_s": manual.until - now, "provider": manual.provider,
    }  # fmt: skip


def _policy(policy: settings.Policy | None) -> dict[str, Any]:
    policy = policy or settings.Policy()
    return msgspec.structs.asdict(policy) | {"by_hand": sorted(policy.fixed)}


def _full_policy(policy: settings.Policy | None) -> dict[str, Any]:
    policy = policy or settings.Policy()
    return {**_policy(policy), "effective": effective_settings(settings.config_of(policy))}
