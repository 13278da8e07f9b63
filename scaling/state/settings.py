"""Which settings are in force, since when and by whom; what a person asked for by hand; all checked before it counts.

A mesh in which nobody has said how many nodes there may be starts none: the policy is off. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

import msgspec

from mesh.errors import Fault, bad_input
from scaling.decision.schedule import problems
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Offer

#: Who made a policy.
BY_FLAGS, BY_HAND = "flags", "hand"
#: What a person asked for holds this long unless they say otherwise, and at most, seconds.
MANUAL_S, MANUAL_MAX_S = 3600.0, 7 * 86400.0
MOST_NODES = 10_000


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `scaling`, `policy`. Settings that are not named have their defaults."""

    version: int = 0
    enabled: bool = False
    settings: dict[str, Any] = {}
    at: float = 0.0
    by: str = ""
    """flags: of a node's start; hand: REST or command"""
    node: str = ""
    """Where it was given."""


class Manual(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `scaling`, `manual`: so many nodes, whatever is seen, until then."""

    target: int
    until: float
    provider: str = ""
    """Only this one starts them; "" for any."""
    at: float = 0.0


class Panic(msgspec.Struct, frozen=True, kw_only=True):
    """KV `scaling`, `panic`: everything paid is ended, and nothing paid is started."""

    at: float


def config_of(policy: Policy) -> ScalingConfig:
    """The settings a policy means. Raises: BadInput, with every fault."""
    return checked(policy.settings)


def checked(settings: Mapping[str, Any]) -> ScalingConfig:
    """Settings by name, as JSON has them. Raises: BadInput, with every fault."""
    known = {one.name: one for one in fields(ScalingConfig)}
    faults, values = [], {}
    for name, value in settings.items():
        if name not in known:
            faults.append(Fault(name[:64], "is no setting of the scaler; docs/scaling.md lists them"))
            continue
        try:
            values[name] = _converted(known[name], value)
        except msgspec.ValidationError as error:
            faults.append(Fault(name, f"is not valid: {str(error).partition(' - at')[0].lower()}"))
    if not faults:
        probe = object.__new__(ScalingConfig)
        for name, one in known.items():
            default = one.default if one.default is not MISSING else one.default_factory()  # type: ignore[misc]
            object.__setattr__(probe, name, values.get(name, default))
        named = sorted(known, key=len, reverse=True)
        for phrase in probe.faults():
            name = next((one for one in named if phrase.startswith(one)), "settings")
            faults.append(Fault(name, phrase.removeprefix(f"{name} ")))
        faults += [Fault("schedule", problem) for problem in problems(probe.schedule, probe.timezone)]
        if probe.max_nodes > MOST_NODES:
            faults.append(Fault("max_nodes", f"must not be above {MOST_NODES}"))
    if faults:
        raise bad_input("The policy is not valid", faults)
    return ScalingConfig(**values)


_TYPES = {
    "str": str, "int": int, "float": float, "tuple[str, ...]": tuple[str, ...],
    "Mapping[str, tuple[float, float]]": dict[str, tuple[float, float]],
}  # fmt: skip


def _converted(field: Any, value: Any) -> Any:
    if value is None and field.type == "float" and field.default == float("inf"):
        return field.default  # no budget, as JSON can say it
    if isinstance(value, bool):
        raise msgspec.ValidationError("Expected a number or a text, got a switch")
    return msgspec.convert(value, _TYPES[field.type])


def changed(before: Policy, change: Mapping[str, Any], enabled: bool | None, by: str, node: str, now: float) -> Policy:
    """The next version: `change` over the settings before; None takes a setting back to its default.

    Raises: BadInput, with every fault.
    """
    nullable = {one.name for one in fields(ScalingConfig) if one.default == float("inf")}
    settings = {**before.settings, **change}
    settings = {name: value for name, value in settings.items() if value is not None or name in nullable}
    checked(settings)
    return Policy(
        version=before.version + 1, enabled=before.enabled if enabled is None else enabled, settings=settings, at=now,
        by=by, node=node,
    )  # fmt: skip


def from_flags(before: Policy | None, flags: Mapping[str, int], node: str, now: float) -> Policy | None:
    """What a node's own flags make of the policy; None: nothing changes.

    `flags`: max_nodes and min_nodes, those that were given. Flags give way to what was set by hand. 0 turns it off.
    """
    if not flags or (before is not None and before.by == BY_HAND):
        return None
    base = before or Policy()
    enabled = flags.get("max_nodes", 1) != 0
    change = {name: value for name, value in flags.items() if name != "max_nodes" or value}
    after = changed(base, change, enabled, BY_FLAGS, node, now)
    same = (after.settings, after.enabled) == (base.settings, base.enabled)
    return None if same and before is not None else after


def effective(config: ScalingConfig, manual: Manual | None, now: float) -> tuple[ScalingConfig, str]:
    """(the settings with what a person asked for, in words); it needs no votes and no windows, only idle nodes."""
    if manual is None or now >= manual.until:
        return config, ""
    target = min(manual.target, config.max_nodes)
    held = replace(
        config, min_nodes=target, max_nodes=target, baseline_nodes=min(config.baseline_nodes, target), up_votes=1,
        down_votes=1, up_window_s=0.0, down_window_s=0.0, min_life_s=0.0, trusted_down_votes=1,
        trusted_down_window_s=0.0,
    )  # fmt: skip
    return held, f"set by hand to {target} nodes for another {manual.until - now:.0f} s"


def allowed(offers: tuple[Offer, ...], manual: Manual | None, now: float) -> tuple[Offer, ...]:
    """The offers that may be taken, where a person named a provider."""
    if manual is None or not manual.provider or now >= manual.until:
        return offers
    return tuple(one for one in offers if one.provider == manual.provider)


def read_manual(body: Mapping[str, Any], have: int, policy: Policy, now: float) -> Manual:
    """`{"target": n}` or `{"delta": n}`, with "provider" and "for_s". `have`: nodes there are, or are on their way.

    Raises: BadInput, with every fault.
    """
    faults, config = [], config_of(policy)
    faults += [Fault(str(name)[:64], "is not known here") for name in body if name not in _MANUAL]
    target, delta = body.get("target"), body.get("delta")
    if not policy.enabled:
        faults.append(Fault("policy", "is off: nothing may be started; give a node --max-nodes"))
    if (target is None) == (delta is None):
        faults.append(Fault("target", "or delta must be given, one of them"))
    wanted = 0
    for name, value in (("target", target), ("delta", delta)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            faults.append(Fault(name, "must be a whole number"))
        elif value is not None:
            wanted = value if name == "target" else have + value
            if not 0 <= wanted <= config.max_nodes:
                said = "" if name == "target" else f"makes {wanted} nodes of {have}, which "
                faults.append(Fault(name, f"{said}must lie between 0 and max_nodes, {config.max_nodes}"))
    for_s = body.get("for_s", MANUAL_S)
    if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= MANUAL_MAX_S:
        faults.append(Fault("for_s", f"must be seconds, at most {MANUAL_MAX_S:g}"))
        for_s = MANUAL_S
    provider = body.get("provider", "")
    if provider and provider not in config.providers:
        faults.append(Fault("provider", f"must be one of {', '.join(config.providers)}"))
    if faults:
        raise bad_input("That can't be done", faults)
    return Manual(target=wanted, until=now + for_s, provider=provider, at=now)


_MANUAL = ("target", "delta", "provider", "for_s")

encode = msgspec.msgpack.Encoder().encode
decode_policy = msgspec.msgpack.Decoder(Policy).decode
decode_manual = msgspec.msgpack.Decoder(Manual).decode
decode_panic = msgspec.msgpack.Decoder(Panic).decode
