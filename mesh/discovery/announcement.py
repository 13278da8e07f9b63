"""What a node says about itself on the local network, and how it fits into a DNS-SD TXT record.

An announcement is a hint, never a fact: anybody on the network can send one, and a machine that crashed takes
its own back by nothing but time. So decoding refuses what is malformed without a word, and whoever uses an
announcement dials the addresses in it first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.subjects import is_token

MEMBER = "member"  # in a mesh; `urls` lead to its bus
CANDIDATE = "candidate"  # found no mesh; would found one
FOUNDING = "founding"  # the bus is being made right now; no urls yet
SEEKER = "seeker"  # belongs to a mesh it remembers and looks for it; never founds

ROLES = (MEMBER, CANDIDATE, FOUNDING, SEEKER)
MAX_URLS = 16
#: An announcement not heard for this long is forgotten, seconds.
TTL_S = 30
_URL = re.compile(r"(nats|tls|http|https)://[A-Za-z0-9.\-\[\]:]{1,200}")


@dataclass(frozen=True)
class Announcement:
    """One node's words. Field lengths are bounded so that all of it fits into one packet."""

    mesh_name: str
    mesh_id: str
    """Empty until the node is in a mesh (a seeker says the one it remembers)."""
    key_fingerprint: str
    """Which key the mesh has; empty for a mesh without one."""
    node_id: str
    urls: tuple[str, ...]
    """Where clients reach the bus: each address of each bus server."""
    role: str
    api: str = ""
    """http://host:port of the node's REST bridge."""
    version: str = ""
    """Version of the program."""
    at: float = 0.0
    """Unix seconds by the announcer's clock when it said this; grows with every change."""
    supports: str = ""
    """The candidate that this candidate lets go first; its own id when it would found itself."""


@dataclass(frozen=True)
class Sighting:
    """An announcement, and when this node heard it (its own monotonic clock, seconds)."""

    announcement: Announcement
    since: float
    """First heard in this role."""
    heard_at: float
    """Heard last."""
    clock_ahead_s: float = 0.0
    """How far the announcer's clock seemed ahead of ours then (negative: behind, or an old record)."""


def to_properties(announcement: Announcement) -> dict[str, str]:
    """The TXT record: short keys, one URL each, at most `MAX_URLS` of them.

    Raises: ValueError when a field is too long for a TXT string (255 bytes with its key).
    """
    properties = {
        "mesh": announcement.mesh_name,
        "id": announcement.mesh_id,
        "key": announcement.key_fingerprint,
        "node": announcement.node_id,
        "role": announcement.role,
        "api": announcement.api,
        "ver": announcement.version,
        "at": f"{announcement.at:.6f}",
        "for": announcement.supports,
    }
    properties |= {f"u{number}": url for number, url in enumerate(announcement.urls[:MAX_URLS])}
    for key, value in properties.items():
        if len(f"{key}={value}".encode()) > 255:
            raise ValueError(f"{key!r} is too long to be announced: {value[:40]}…")
    return {key: value for key, value in properties.items() if value}


def from_properties(properties: Mapping[str, str]) -> Announcement | None:
    """The announcement in a TXT record, or None when it is none that this version understands."""
    get = properties.get
    urls = tuple(url for number in range(MAX_URLS) if (url := get(f"u{number}", "")))
    tokens = (get("mesh", ""), get("node", ""))
    optional = (get("id", ""), get("key", ""), get("for", ""))
    api = get("api", "")
    if not all(map(is_token, tokens)) or not all(not text or is_token(text) for text in optional):
        return None
    if get("role") not in ROLES or not all(map(_URL.fullmatch, urls + ((api,) if api else ()))):
        return None
    try:
        at = float(get("at", "0"))
    except ValueError:
        return None
    if not 0 <= at < 1e12:
        return None
    return Announcement(
        mesh_name=tokens[0],
        mesh_id=optional[0],
        key_fingerprint=optional[1],
        node_id=tokens[1],
        urls=urls,
        role=str(get("role")),
        api=api,
        version="".join(filter(str.isprintable, get("ver", "")))[:40],
        at=at,
        supports=optional[2],
    )


def from_txt(text: bytes) -> Announcement | None:
    """The announcement in the raw bytes of a TXT record (length-prefixed `key=value` strings), or None."""
    properties, rest = {}, text
    while rest:
        length = rest[0]
        key, _, value = rest[1 : 1 + length].partition(b"=")
        rest = rest[1 + length :]
        try:
            properties[key.decode("ascii")] = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return from_properties(properties)


def heard(before: Sighting | None, said: Announcement, now: float, wall: float) -> Sighting | None:
    """What is known of a node after hearing `said`; None when that is an older word than the known one. Pure.

    `now` is monotonic, `wall` Unix time, both seconds.
    """
    if before and said.at < before.announcement.at and now - before.heard_at < 2.0:
        return None  # a repeat that was under way while the news overtook it
    same_role = before is not None and before.announcement.role == said.role
    ahead_s = said.at - wall
    if before and said.at == before.announcement.at:
        ahead_s = before.clock_ahead_s
    return Sighting(said, before.since if before and same_role else now, now, ahead_s)


def still_valid(sightings: Iterable[Sighting], now: float) -> dict[str, Sighting]:
    """By node id, the sightings younger than `TTL_S`. Pure."""
    return {s.announcement.node_id: s for s in sightings if now - s.heard_at < TTL_S}
