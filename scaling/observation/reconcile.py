"""What was ordered, what providers tell of and who is in the mesh, brought together: none doubled, none lost. Pure.

Both directions are swept: an instance that nobody ordered is ended, a started node that nobody accounts for is told to
go. A list that did not come proves nothing: what it might tell of counts as starting until it does come.
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

#: A node that drains and holds nothing leaves by itself; after this long it is helped, seconds.
HELP_AFTER_S = 20.0
#: A node that was told to go works on what it holds for this long at most, seconds.
DRAIN_WITHIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Listing:
    """What a provider told of, for its place."""

    place: str
    instances: tuple[Instance, ...]


@dataclass
class Reconciled:
    """What is known now, and what follows from it."""

    intents: dict[str, Intent] = field(default_factory=dict)
    """token -> the intent as it is to stand from now on"""
    write: list[Intent] = field(default_factory=list)
    """Those of them that changed."""
    forget: list[str] = field(default_factory=list)
    """Tokens of intents that are over."""
    end: list[tuple[str, str]] = field(default_factory=list)
    """(provider, instance) to be terminated"""
    leave: list[tuple[str, str, str]] = field(default_factory=list)
    """(node, token, why) to be told to go"""
    failed: list[str] = field(default_factory=list)
    """An offer for each launch that failed."""
    joined: list[tuple[str, float]] = field(default_factory=list)
    """(offer, seconds it took) for each node that joined"""
    news: list[tuple[str, str, str]] = field(default_factory=list)
    """(what happened, token, in words) for the journal"""


def reconcile(
    intents: Iterable[Intent],
    listings: Mapping[str, Listing],
    members: Iterable[Member],
    places: Mapping[str, str],
    since: float,
    config: ScalingConfig,
    now: float,
) -> Reconciled:
    """`listings`: provider -> what it told, only those that did, asked before `intents` were read; `places`: provider
    -> what its list covers from here.

    `since`: when this master's term began: it gives everything at least its full time from then on, so that another
    machine's clock, or one that jumped, makes nobody overdue.
    """
    found = Reconciled()
    by_token = {token: one for one in members if (token := one.record.labels.get(TOKEN_LABEL))}
    for intent in sorted((_sane(one, since, now) for one in intents), key=lambda one: (one.at, one.token)):
        listing = listings.get(intent.provider)
        told = listing if listing is not None and listing.place == intent.place else None
        mine = [one for one in told.instances if one.token == intent.token] if told else []
        elsewhere = places.get(intent.provider) != intent.place
        _one(found, intent, mine, told is not None, elsewhere, by_token.get(intent.token), since, config, now)
    known = set(found.intents) | set(found.forget)
    _orphans(found, known, listings, by_token, since, config, now)
    found.write = [found.intents[token] for token in dict.fromkeys(one.token for one in found.write)]
    return found


def _sane(intent: Intent, since: float, now: float) -> Intent:
    """What another clock dated into the future is as old as this term."""
    if max(intent.at, intent.joined_at, intent.ending_at) <= now:
        return intent
    at, joined, ending = (since if one > now else one for one in (intent.at, intent.joined_at, intent.ending_at))
    return replace(intent, at=at, joined_at=joined, ending_at=ending)


def _one(
    found: Reconciled,
    intent: Intent,
    mine: Sequence[Instance],
    told: bool,
    elsewhere: bool,
    member: Member | None,
    since: float,
    config: ScalingConfig,
    now: float,
) -> None:
    alive = member is not None and member.state in ALIVE
    for double in mine[1:]:
        found.end.append((intent.provider, double.id))
        found.news.append(("doubled", intent.token, f"{intent.provider} runs it twice; {double.id} is ended"))
    if intent.state == ENDING:
        _ending(found, intent, mine[:1], told, elsewhere, member if alive else None, now)
    elif alive and member is not None:
        if intent.state != JOINED:
            took_s = max(0.0, now - intent.at)
            intent = replace(intent, state=JOINED, node=member.record.id, joined_at=now)
            found.joined.append((intent.offer, took_s))
            found.write.append(intent)
            found.news.append(("joined", intent.token, f"{member.record.id} joined after {took_s:.1f} s"))
        if mine and mine[0].ending_at:
            intent = _end(found, intent, f"{intent.provider} takes it away soon", now)
        found.intents[intent.token] = intent
    elif intent.state == JOINED:
        found.intents[intent.token] = _end(found, intent, "its node is gone", now)
        found.end += [(intent.provider, one.id) for one in mine[:1]]
    else:
        _starting(found, intent, mine[:1], told, elsewhere, since, config, now)


def _end(found: Reconciled, intent: Intent, why: str, now: float) -> Intent:
    intent = replace(intent, state=ENDING, ending_at=now, why=why)
    found.write.append(intent)
    found.news.append(("ending", intent.token, why))
    return intent


def _starting(
    found: Reconciled,
    intent: Intent,
    mine: Sequence[Instance],
    told: bool,
    elsewhere: bool,
    since: float,
    config: ScalingConfig,
    now: float,
) -> None:
    age_s = now - max(intent.at, since)
    late = age_s > config.join_within_s
    if mine:
        if intent.state == INTENDED:
            intent = replace(intent, state=LAUNCHED, instance=mine[0].id)
            if not late:
                found.write.append(intent)
            found.news.append(("found", intent.token, f"{intent.provider} had carried out the order: {mine[0].id}"))
        if late:
            why = f"it has not joined within {config.join_within_s:g} s"
            found.failed.append(intent.offer)
            intent = _end(found, intent, why, now)
            found.end.append((intent.provider, mine[0].id))
    elif (told and age_s > config.settle_s) or (elsewhere and late):
        found.forget.append(intent.token)
        if intent.state == LAUNCHED or elsewhere:
            found.failed.append(intent.offer)
            found.news.append(("failed", intent.token, f"{intent.provider} started it; it was gone before it joined"))
        else:
            found.news.append(("void", intent.token, f"{intent.provider} knows nothing of it: it was not started"))
        return
    found.intents[intent.token] = intent


def _ending(
    found: Reconciled,
    intent: Intent,
    mine: Sequence[Instance],
    told: bool,
    elsewhere: bool,
    member: Member | None,
    now: float,
) -> None:
    if member is not None:
        asked_s = now - intent.ending_at
        if member.state != DRAINING:
            found.leave.append((member.record.id, intent.token, intent.why))
        holds = member.heartbeat is None or member.heartbeat.running + member.heartbeat.queued > 0
        # One that does not drain although it was told may be deaf; one that holds work is left to finish it.
        if asked_s > DRAIN_WITHIN_S or (asked_s > HELP_AFTER_S and not holds):
            found.end += [(intent.provider, one.id) for one in mine]
    elif mine:
        found.end.append((intent.provider, mine[0].id))
    elif told or elsewhere:
        found.forget.append(intent.token)
        found.news.append(("ended", intent.token, intent.why))
        return
    found.intents[intent.token] = intent


def _orphans(
    found: Reconciled,
    known: set[str],
    listings: Mapping[str, Listing],
    by_token: Mapping[str, Member],
    since: float,
    config: ScalingConfig,
    now: float,
) -> None:
    listed = set()
    for provider, listing in listings.items():
        for one in listing.instances:
            if one.token in known or one.token in found.intents:
                continue  # a second one of a token that was just adopted is looked at next time
            listed.add(one.token)
            member = by_token.get(one.token)
            if one.token and member is not None and member.state in ALIVE:
                intent = Intent(
                    token=one.token, provider=provider, offer=one.offer, pool="", place=listing.place, state=JOINED,
                    at=min(one.launched_at or now, now), instance=one.id, node=member.record.id, joined_at=now,
                    price_usd_h=one.price_usd_h,
                )  # fmt: skip
                found.intents[one.token] = intent
                found.write.append(intent)
                found.news.append(("adopted", one.token, f"{member.record.id} was not accounted for"))
            elif now - since > config.settle_s:
                found.end.append((provider, one.id))
                why = f"{one.id} of {provider} has no node and no order; it is ended"
                found.news.append(("orphan", one.token, why))
    for token, member in by_token.items():
        if token in known or token in listed or member.state not in ALIVE or now - since < config.settle_s:
            continue
        if listings and member.state != DRAINING:
            found.leave.append((member.record.id, token, "nobody accounts for it"))
