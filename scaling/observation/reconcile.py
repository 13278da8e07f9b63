"""Reconciles orders, the providers' lists and the members: no node is started twice, none is lost. Pure.

Both directions are swept: an instance without an order is ended, a started node without an order is told to leave. A
list that did not arrive proves nothing: what it might show counts as starting until it does arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from mesh.capacity import TOKEN_LABEL
from mesh.membership.member import ALIVE, DRAINING, Member
from scaling.domain.config import ScalingConfig
from scaling.providers.base import Instance
from scaling.state.orders import ENDING, INTENDED, JOINED, LAUNCHED, Intent

#: A node that drains and holds no task leaves by itself; after this long its provider ends it, seconds.
HELP_AFTER_S = 20.0
#: A node that was told to leave may work on what it holds for this long, seconds.
DRAIN_WITHIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Listing:
    """A provider's list, for the place it covers."""

    place: str
    instances: tuple[Instance, ...]


@dataclass
class Reconciled:
    """What is known now, and what to do about it."""

    intents: dict[str, Intent] = field(default_factory=dict[str, Intent])
    """token -> the intent as it stands from now on"""
    write: list[Intent] = field(default_factory=list[Intent])
    """The intents among them that changed."""
    forget: list[str] = field(default_factory=list[str])
    """Tokens of intents that are over."""
    end: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(provider, instance) to terminate"""
    leave: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """(node, token, why) to tell to leave"""
    failed: list[str] = field(default_factory=list[str])
    """The offer of each launch that failed."""
    joined: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    """(offer, seconds from order to join) of each node that joined"""
    events: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """(event, token, sentence) for the journal"""


@dataclass(frozen=True)
class _Match:
    """What is known about one intent from outside."""

    instances: Sequence[Instance]
    """Those of its token, by its provider's list."""
    is_listed: bool
    """Whether the list that covers its place arrived."""
    is_elsewhere: bool
    """Whether no list from here covers its place."""
    member: Member | None
    """Its node, if that is alive."""


def reconcile(
    intents: Iterable[Intent],
    listings: Mapping[str, Listing],
    members: Iterable[Member],
    places: Mapping[str, str],
    since: float,
    config: ScalingConfig,
    now: float,
) -> Reconciled:
    """`listings`: provider -> its list, where it arrived; requested before `intents` were read. `places`: provider ->
    what its list covers from here.

    `since`: when this leader's term began. Every time limit runs from then at the earliest, so that another machine's
    clock, or one that jumped, makes nothing overdue.
    """
    found = Reconciled()
    by_token = {token: member for member in members if (token := member.record.labels.get(TOKEN_LABEL))}
    clamped = (_clamped(intent, since, now) for intent in intents)
    for intent in sorted(clamped, key=lambda intent: (intent.at, intent.token)):
        listing = listings.get(intent.provider)
        if listing is not None and listing.place != intent.place:
            listing = None
        instances = [each for each in listing.instances if each.token == intent.token] if listing else []
        member = by_token.get(intent.token)
        match = _Match(
            instances,
            listing is not None,
            places.get(intent.provider) != intent.place,
            member if member is not None and member.state in ALIVE else None,
        )
        _reconcile_intent(found, intent, match, since, config, now)
    known = set(found.intents) | set(found.forget)
    _sweep(found, known, listings, by_token, since, config, now)
    found.write = [found.intents[token] for token in dict.fromkeys(intent.token for intent in found.write)]
    return found


def _clamped(intent: Intent, since: float, now: float) -> Intent:
    """Times that another clock dated into the future become the beginning of this term."""
    if max(intent.at, intent.joined_at, intent.ending_at) <= now:
        return intent
    at, joined, ending = (since if time > now else time for time in (intent.at, intent.joined_at, intent.ending_at))
    return replace(intent, at=at, joined_at=joined, ending_at=ending)


def _reconcile_intent(
    found: Reconciled, intent: Intent, match: _Match, since: float, config: ScalingConfig, now: float
) -> None:
    for double in match.instances[1:]:
        found.end.append((intent.provider, double.id))
        found.events.append(("doubled", intent.token, f"{intent.provider} runs it twice; {double.id} is ended"))
    if intent.state == ENDING:
        _reconcile_ending(found, intent, match, now)
    elif match.member is not None:
        if intent.state != JOINED:
            took_s = max(0.0, now - intent.at)
            intent = replace(intent, state=JOINED, node=match.member.record.id, joined_at=now)
            found.joined.append((intent.offer, took_s))
            found.write.append(intent)
            found.events.append(("joined", intent.token, f"{intent.node} joined after {took_s:.1f} s"))
        if match.instances and match.instances[0].ending_at:
            intent = _begin_ending(found, intent, f"{intent.provider} takes the instance away soon", now)
        found.intents[intent.token] = intent
    elif intent.state == JOINED:
        found.intents[intent.token] = _begin_ending(found, intent, "its node is gone", now)
        found.end += [(intent.provider, instance.id) for instance in match.instances[:1]]
    else:
        _reconcile_starting(found, intent, match, since, config, now)


def _begin_ending(found: Reconciled, intent: Intent, why: str, now: float) -> Intent:
    intent = replace(intent, state=ENDING, ending_at=now, why=why)
    found.write.append(intent)
    found.events.append(("ending", intent.token, why))
    return intent


def _reconcile_starting(
    found: Reconciled, intent: Intent, match: _Match, since: float, config: ScalingConfig, now: float
) -> None:
    age_s = now - max(intent.at, since)
    is_late = age_s > config.join_within_s
    if match.instances:
        instance = match.instances[0]
        if intent.state == INTENDED:
            intent = replace(intent, state=LAUNCHED, instance=instance.id)
            if not is_late:
                found.write.append(intent)
            found.events.append(("found", intent.token, f"{intent.provider} had carried out the order: {instance.id}"))
        if is_late:
            found.failed.append(intent.offer)
            intent = _begin_ending(found, intent, f"its node has not joined within {config.join_within_s:g} s", now)
            found.end.append((intent.provider, instance.id))
    elif (match.is_listed and age_s > config.settle_s) or (match.is_elsewhere and is_late):
        found.forget.append(intent.token)
        if intent.state == LAUNCHED or match.is_elsewhere:
            found.failed.append(intent.offer)
            why = f"{intent.provider} started it, and it was gone before its node joined"
            found.events.append(("failed", intent.token, why))
        else:
            why = f"{intent.provider} lists no instance of it: it was not started"
            found.events.append(("void", intent.token, why))
        return
    found.intents[intent.token] = intent


def _reconcile_ending(found: Reconciled, intent: Intent, match: _Match, now: float) -> None:
    if match.member is not None:
        member, passed_s = match.member, now - intent.ending_at
        if member.state != DRAINING:
            found.leave.append((member.record.id, intent.token, intent.why))
        holds_tasks = member.heartbeat is None or member.heartbeat.running + member.heartbeat.queued > 0
        # A node that was told and does not drain may not have heard it; one that holds tasks may finish them.
        if passed_s > DRAIN_WITHIN_S or (passed_s > HELP_AFTER_S and not holds_tasks):
            found.end += [(intent.provider, instance.id) for instance in match.instances[:1]]
    elif match.instances:
        found.end.append((intent.provider, match.instances[0].id))
    elif match.is_listed or match.is_elsewhere:
        found.forget.append(intent.token)
        found.events.append(("ended", intent.token, intent.why))
        return
    found.intents[intent.token] = intent


def _sweep(
    found: Reconciled,
    known: set[str],
    listings: Mapping[str, Listing],
    by_token: Mapping[str, Member],
    since: float,
    config: ScalingConfig,
    now: float,
) -> None:
    """Adopt or end what has no order. `known`: tokens that have, or had, an order."""
    listed: set[str] = set()
    for provider, listing in listings.items():
        for instance in listing.instances:
            if instance.token in known or instance.token in found.intents:
                continue  # a second instance of a token that was just adopted is handled in the next cycle
            listed.add(instance.token)
            member = by_token.get(instance.token)
            if instance.token and member is not None and member.state in ALIVE:
                intent = Intent(
                    token=instance.token, provider=provider, offer=instance.offer, pool="", place=listing.place,
                    state=JOINED, at=now, instance=instance.id,
                    node=member.record.id, joined_at=now, price_usd_h=instance.price_usd_h,
                )  # fmt: skip
                found.intents[instance.token] = intent
                found.write.append(intent)
                found.events.append(("adopted", instance.token, f"{member.record.id} had no order and gets one"))
            elif now - since > config.settle_s:
                found.end.append((provider, instance.id))
                why = f"{instance.id} of {provider} has no order and no node; it is ended"
                found.events.append(("orphan", instance.token, why))
    for token, member in by_token.items():
        if token in known or token in listed or member.state not in ALIVE or now - since < config.settle_s:
            continue
        if listings and member.state != DRAINING:
            found.leave.append((member.record.id, token, "it has no order"))
