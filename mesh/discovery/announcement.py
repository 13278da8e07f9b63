"""Announcements of nodes on the local network, and their encoding as DNS-SD TXT records. Pure.

An announcement is a hint, not a fact: any host can send one, and that of a crashed machine only expires. So malformed
announcements are ignored silently, and a node that uses an announcement dials its addresses first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.subjects import is_token

MEMBER = "member"  # is in a mesh; `urls` are those of its bus
CANDIDATE = "candidate"  # has found no mesh and would create one
FOUNDING = "founding"  # is creating the mesh; it has no urls yet
SEEKER = "seeker"  # looks for the mesh that it remembers; never creates one

ROLES = (MEMBER, CANDIDATE, FOUNDING, SEEKER)
MAX_URLS = 16
MAX_ROUTES = 8
#: An announcement expires when it was not received for this long, seconds.
TTL_S = 30
_URL = re.compile(r"(nats|tls|http|https)://[A-Za-z0-9.\-\[\]:]{1,200}")
_ROUTE = re.compile(r"([A-Za-z0-9.:\-]{1,200}):([0-9]{1,5})")


@dataclass(frozen=True)
class Announcement:
    """The announcement of one node. Field lengths are bounded so that it fits into one packet."""

    mesh_name: str
    mesh_id: str
    """Empty until the node is in a mesh; for a seeker, the mesh that it remembers."""
    key_fingerprint: str
    """Fingerprint of the mesh's key; empty for a mesh without a key."""
    node_id: str
    urls: tuple[str, ...]
    """Client URLs of the bus: each address of each bus server."""
    role: str
    api: str = ""
    """http://HOST:PORT of the node's REST bridge."""
    version: str = ""
    """Version of the program."""
    at: float = 0.0
    """When it was sent, Unix seconds by the announcer's clock; increases with every change."""
    supports: str = ""
    """The candidate that this candidate supports; its own id when it would create the mesh itself."""
    routes: tuple[tuple[str, int], ...] = ()
    """(address, port) where other bus servers reach the bus server of this node; empty when it hosts none."""


@dataclass(frozen=True)
class Sighting:
    """A received announcement; times are on the receiver's monotonic clock, seconds."""

    announcement: Announcement
    since: float
    """When the node was first heard in this role."""
    heard_at: float
    """When it was last heard."""
    clock_ahead_s: float = 0.0
    """How far the announcer's clock was ahead of the local one; negative: it was behind, or the record was old."""


def to_properties(announcement: Announcement) -> dict[str, str]:
    """The TXT record: short keys, one key per URL or route, at most `MAX_URLS` URLs and `MAX_ROUTES` routes.

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
    routes = enumerate(announcement.routes[:MAX_ROUTES])
    properties |= {f"r{number}": f"{host}:{port}" for number, (host, port) in routes}
    for key, value in properties.items():
        if len(f"{key}={value}".encode()) > 255:
            raise ValueError(f"{key!r} is too long to be announced: {value[:40]}…")
    return {key: value for key, value in properties.items() if value}


def from_properties(properties: Mapping[str, str]) -> Announcement | None:
    """The announcement in a TXT record; None when it is malformed or of an unknown form."""
    get = properties.get
    urls = tuple(url for number in range(MAX_URLS) if (url := get(f"u{number}", "")))
    routes = [_ROUTE.fullmatch(text) for number in range(MAX_ROUTES) if (text := get(f"r{number}", ""))]
    tokens = (get("mesh", ""), get("node", ""))
    optional = (get("id", ""), get("key", ""), get("for", ""))
    api = get("api", "")
    if not all(map(is_token, tokens)) or not all(not text or is_token(text) for text in optional):
        return None
    if get("role") not in ROLES or not all(map(_URL.fullmatch, urls + ((api,) if api else ()))):
        return None
    if not all(route is not None and 0 < int(route[2]) < 65536 for route in routes):
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
        routes=tuple((route[1], int(route[2])) for route in routes if route is not None),
    )


def from_txt(text: bytes) -> Announcement | None:
    """The announcement in the raw bytes of a TXT record (length-prefixed `key=value` strings), or None."""
    properties: dict[str, str] = {}
    rest = text
    while rest:
        length = rest[0]
        key, _, value = rest[1 : 1 + length].partition(b"=")
        rest = rest[1 + length :]
        try:
            properties[key.decode("ascii")] = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return from_properties(properties)


def heard(before: Sighting | None, announcement: Announcement, now: float, unix_now: float) -> Sighting | None:
    """The sighting after receiving `announcement`; None when it is older than the known one.

    `now`: monotonic seconds; `unix_now`: Unix seconds.
    """
    if before and announcement.at < before.announcement.at and now - before.heard_at < 2.0:
        return None  # a delayed repeat that a newer announcement has overtaken
    same_role = before is not None and before.announcement.role == announcement.role
    ahead_s = announcement.at - unix_now
    if before and announcement.at == before.announcement.at:
        ahead_s = before.clock_ahead_s
    return Sighting(announcement, before.since if before and same_role else now, now, ahead_s)


def still_valid(sightings: Iterable[Sighting], now: float) -> dict[str, Sighting]:
    """Node id -> its sighting, for those that have not expired."""
    return {sighting.announcement.node_id: sighting for sighting in sightings if now - sighting.heard_at < TTL_S}
