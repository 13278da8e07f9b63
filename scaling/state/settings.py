"""Settings in force: the policy, with its versions, and what a person set by hand. Checked before they are stored.
Pure.

A mesh in which nobody has set a node limit starts no nodes: its policy is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, replace
from typing import Any

import msgspec

from mesh.decoding import Decoder
from mesh.errors import Fault, bad_input
from scaling.decision.schedule import problems
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Offer
from scaling.domain.units import DAY_S, HOUR_S, counted

#: Who made a policy.
BY_FLAGS, BY_HAND = "flags", "hand"
#: How long a manual target holds by default, and at most, seconds.
MANUAL_S, MANUAL_MAX_S = HOUR_S, 7 * DAY_S
MOST_NODES = 10_000
#: So much later than it was set, by another copy's clock, a manual target may end, seconds.
_CLOCKS_S = 60.0


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `scaling`, `policy`. Settings that are not named have their defaults."""

    version: int = 0
    enabled: bool = False
    settings: dict[str, Any] = {}
    at: float = 0.0
    by: str = ""
    """flags: a node's start; hand: REST or command line"""
    node: str = ""
    """Id of the node it was set on."""
    by_hand: tuple[str, ...] | None = None
    """Names of the settings, and "enabled", that a person has set: flags don't change them. None: an earlier version
    wrote it."""

    @property
    def fixed(self) -> frozenset[str]:
        """What flags don't change."""
        if self.by_hand is not None:
            return frozenset(self.by_hand)
        if self.by != BY_HAND:
            return frozenset()
        # An earlier version kept no record. The first policy of a mesh that only changes settings switches nothing.
        switched = self.enabled or self.version > 1 or not self.settings
        return frozenset({*self.settings, *(("enabled",) if switched else ())})


class ManualTarget(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `scaling`, `manual`: this many nodes until that time, whatever the load is."""

    target: int
    until: float
    provider: str = ""
    """Only this provider starts them; "" for any."""
    at: float = 0.0


class Panic(msgspec.Struct, frozen=True, kw_only=True):
    """KV `scaling`, `panic`: everything paid is ended, and nothing paid is started."""

    at: float


def config_of(policy: Policy) -> ScalingConfig:
    """The settings of a policy, defaults filled in. Raises: BadInput, with every fault."""
    return checked(policy.settings)


def checked(settings: Mapping[str, Any]) -> ScalingConfig:
    """Settings by name, as JSON has them. Raises: BadInput, with every fault."""
    known = {setting.name: setting for setting in fields(ScalingConfig)}
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            faults.append(Fault(name[:64], "is no setting of the scaler; docs/scaling.md lists them"))
            continue
        try:
            values[name] = _converted(known[name], value)
        except msgspec.ValidationError as error:
            faults.append(Fault(name, f"is not valid: {str(error).partition(' - at')[0].lower()}"))
    if not faults:
        faults = _contradictions(known, values)
    if faults:
        raise bad_input("The policy is not valid", faults)
    return ScalingConfig(**values)


def _contradictions(known: Mapping[str, Field[Any]], values: Mapping[str, Any]) -> list[Fault]:
    """Every fault of settings whose values have the right types. `known`: all settings, by name."""
    probe = object.__new__(ScalingConfig)  # its constructor would raise at the first fault
    for name, setting in known.items():
        factory = setting.default_factory
        default = factory() if factory is not MISSING else setting.default
        object.__setattr__(probe, name, values.get(name, default))
    faults: list[Fault] = []
    longest_first = sorted(known, key=len, reverse=True)
    for phrase in probe.faults():
        name = next((name for name in longest_first if phrase.startswith(name)), "settings")
        faults.append(Fault(name, phrase.removeprefix(f"{name} ")))
    faults += [Fault(setting, problem) for setting, problem in problems(probe.schedule, probe.timezone)]
    if probe.max_nodes > MOST_NODES:
        faults.append(Fault("max_nodes", f"must not be above {MOST_NODES}"))
    return faults


_TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "tuple[str, ...]": tuple[str, ...],
    "Mapping[str, tuple[float, float]]": dict[str, tuple[float, float]],
}  # fmt: skip


def _converted(setting: Field[Any], value: Any) -> Any:
    if value is None and setting.type == "float" and setting.default == float("inf"):
        return setting.default  # JSON says null for "no budget"
    if isinstance(value, bool):
        raise msgspec.ValidationError("expected a number or text, got true or false")
    return msgspec.convert(value, _TYPES[str(setting.type)])


def changed(before: Policy, change: Mapping[str, Any], enabled: bool | None, by: str, node: str, now: float) -> Policy:
    """The next version: `change` over the settings before; None resets a setting to its default.

    Raises: BadInput, with every fault.
    """
    nullable = {setting.name for setting in fields(ScalingConfig) if setting.default == float("inf")}
    settings = {**before.settings, **change}
    settings = {name: value for name, value in settings.items() if value is not None or name in nullable}
    checked(settings)
    fixed = before.fixed
    if by == BY_HAND:
        reset = {name for name, value in change.items() if value is None and name not in nullable}
        fixed = (fixed | change.keys() | ({"enabled"} if enabled is not None else set())) - reset
    return Policy(
        version=before.version + 1, enabled=before.enabled if enabled is None else enabled, settings=settings, at=now,
        by=by, node=node, by_hand=tuple(sorted(fixed)),
    )  # fmt: skip


def from_flags(before: Policy | None, flags: Mapping[str, int], node: str, now: float) -> Policy | None:
    """The policy that a node's own flags make of the one before; None: nothing changes.

    `flags`: those of max_nodes and min_nodes that were given; max_nodes 0 turns scaling off. Flags change nothing that
    a person has set, neither a setting nor the switch.
    """
    if not flags:
        return None
    base = before or Policy()
    enabled = None if "enabled" in base.fixed else flags.get("max_nodes", 1) != 0
    change = {name: value for name, value in flags.items() if name not in base.fixed and (name != "max_nodes" or value)}
    if change.get("min_nodes", 0) > base.settings.get("max_nodes", MOST_NODES) and "max_nodes" not in change:
        del change["min_nodes"]  # the limit that a person has set holds
    after = changed(base, change, enabled, BY_FLAGS, node, now)
    same = (after.settings, after.enabled) == (base.settings, base.enabled)
    return None if same and before is not None else after


def ignored_flags(policy: Policy, flags: Mapping[str, int]) -> str:
    """What of `flags` does not hold because a person has set it otherwise, for people; "" when all of it does. Pure."""
    fixed, phrases = policy.fixed, list[str]()
    if "enabled" in fixed and policy.enabled != (flags.get("max_nodes", 1) != 0):
        phrases.append(f"scaling was turned {'on' if policy.enabled else 'off'} by hand")
    phrases += [
        f"{name} was set to {policy.settings.get(name)} by hand"
        for name, value in flags.items()
        if value and name in fixed and policy.settings.get(name) != value
    ]
    return " and ".join(phrases)


def off_reason(policy: Policy | None) -> str:
    """Why no node is started although the mesh could, for people. `policy` is off. Pure."""
    if policy is None or (not policy.enabled and "enabled" not in policy.fixed and policy.by != BY_FLAGS):
        version = f" (policy {policy.version} changes settings only)" if policy else ""
        return (
            f"nobody has turned scaling on{version}: start a node with --max-nodes, or run "
            "`queztl scale policy max_nodes=N --on`"
        )
    if "enabled" in policy.fixed:
        return f"scaling was turned off by hand (policy {policy.version}); `queztl scale policy --on` turns it on"
    return f"a node was started with --max-nodes 0 (policy {policy.version})"


def in_force(manual: ManualTarget | None, now: float) -> ManualTarget | None:
    """The manual target, while it holds. Pure. Anybody can write the record: one that nobody could have set by the API,
    for a hundred years or of a million nodes, does not count."""
    if manual is None or not now < manual.until <= now + MANUAL_MAX_S + _CLOCKS_S:
        return None
    return manual if 0 <= manual.target <= MOST_NODES else None


def effective(config: ScalingConfig, manual: ManualTarget | None, now: float) -> tuple[ScalingConfig, str]:
    """(the settings with the manual target applied, a note that says so or "").

    A manual target needs no votes and no windows; scale-in to it still drains idle nodes only.
    """
    if (manual := in_force(manual, now)) is None:
        return config, ""
    target = min(manual.target, config.max_nodes)
    applied = replace(
        config, min_nodes=target, max_nodes=target, baseline_nodes=min(config.baseline_nodes, target), up_votes=1,
        down_votes=1, up_window_s=0.0, down_window_s=0.0, min_life_s=0.0, trusted_down_votes=1,
        trusted_down_window_s=0.0,
    )  # fmt: skip
    return applied, f"set by hand to {counted(target, 'node')} for another {manual.until - now:.0f} s"


def allowed(offers: tuple[Offer, ...], manual: ManualTarget | None, now: float) -> tuple[Offer, ...]:
    """The offers of the provider that the manual target names; all of them when it names none."""
    if (manual := in_force(manual, now)) is None or not manual.provider:
        return offers
    return tuple(offer for offer in offers if offer.provider == manual.provider)


def read_manual(body: Mapping[str, Any], have: int, policy: Policy, now: float) -> ManualTarget:
    """The manual target of `{"target": n}` or `{"delta": n}`, each with an optional "provider" and "for_s".

    `have`: nodes that are there or starting. Raises: BadInput, with every fault.
    """
    config = config_of(policy)
    faults = [Fault(name[:64], "is not known here") for name in body if name not in _MANUAL]
    if not policy.enabled:
        faults.append(Fault("policy", "is off, so no node may be started; start a node with --max-nodes"))
    if (body.get("target") is None) == (body.get("delta") is None):
        faults.append(Fault("target", "or delta must be given, one of them"))
    target = 0
    for name in ("target", "delta"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            faults.append(Fault(name, "must be a whole number"))
        elif value is not None:
            target = value if name == "target" else have + value
            if not 0 <= target <= config.max_nodes:
                sum_ = "" if name == "target" else f"makes {counted(target, 'node')} of {have}, which "
                faults.append(Fault(name, f"{sum_}must lie between 0 and max_nodes, {config.max_nodes}"))
    for_s = body.get("for_s", MANUAL_S)
    if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= MANUAL_MAX_S:
        faults.append(Fault("for_s", f"must be seconds, at most {MANUAL_MAX_S:g}"))
        for_s = MANUAL_S
    provider = body.get("provider", "")
    if not isinstance(provider, str) or (provider and provider not in config.providers):
        faults.append(Fault("provider", f"must be one of {', '.join(config.providers)}"))
    if faults:
        raise bad_input("The number of nodes can't be set", faults)
    return ManualTarget(target=target, until=now + for_s, provider=provider, at=now)


_MANUAL = ("target", "delta", "provider", "for_s")

encode = msgspec.msgpack.Encoder().encode
decode_policy: Decoder[Policy] = Decoder(Policy, "policy")
decode_manual: Decoder[ManualTarget] = Decoder(ManualTarget, "number of nodes set by hand")
decode_panic: Decoder[Panic] = Decoder(Panic, "panic")
