"""Which requests the bridge answers: none of other web pages, and without a key none of other machines.

A web page in a browser can send requests to 127.0.0.1. Three headers tell it from a program: Host (a re-bound DNS name
is not a name of this node), Origin, and Sec-Fetch-Site. This is not authentication: a program on this machine may do
everything that a mesh without a key allows.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from api.documents.errors import excerpt
from mesh.errors import Forbidden, Misdirected, QueztlError

if TYPE_CHECKING:
    from aiohttp import web

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Trust:
    """The facts that decide."""

    port: int
    names: frozenset[str] = frozenset()
    """The names of this machine, in lower case."""
    extra: frozenset[str] = frozenset()
    """Further `host:port` that clients may use."""
    loopback_only: bool = True
    open_api: bool = False


def is_loopback(host: str) -> bool:
    """Whether a listening address can be reached only from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names() -> frozenset[str]:
    """The names of this machine, without a DNS query."""
    name = socket.gethostname().lower().rstrip(".")
    short = name.split(".")[0]
    return frozenset(filter(None, (name, short, f"{short}.local" if short else "")))


@lru_cache(maxsize=256)  # the same few names, at every request
def is_own(trust: Trust, authority: str, local_address: str, default_port: int = 80) -> bool:
    """Whether `authority` (host[:port], as in a Host header) names this node.

    `local_address`: the local address of the connection, which the client really dialled.
    """
    if authority.lower() in trust.extra:
        return True
    match = _HOST.fullmatch(authority)
    if match is None:
        return False
    if int(match[3] or default_port) != trust.port:
        return False
    host = (match[1] or match[2]).lower().rstrip(".")
    if host == "localhost" or host in trust.names:
        return True
    try:
        address = _address(host)
        return address.is_loopback or (bool(local_address) and address == _address(local_address))
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its scope; an IPv4-mapped one as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def decide(
    trust: Trust,
    *,
    host: str | None,
    local_address: str,
    origin: str | None,
    fetch_site: str | None,
    route_is_open: bool,
) -> QueztlError | None:
    """Why a request is refused (Misdirected or Forbidden), or None; the method does not matter. Pure."""
    if host is None or not is_own(trust, host, local_address):
        return Misdirected(
            f"{excerpt(host or '', 100)!r} is not a name of this node; "
            f"use its address or its own name, with port {trust.port}."
        )
    if origin is not None and not _is_own_origin(trust, origin, local_address):
        return Forbidden("Web pages of other sites may not use this node.")
    if (fetch_site or "").strip().lower() == "cross-site":
        return Forbidden("Web pages of other sites may not use this node.")
    if not (trust.loopback_only or trust.open_api or route_is_open):
        return Forbidden(
            "This mesh has no key, so a node answers other machines only register, health and status; "
            "start it with --open-api to let everyone on the network use it."
        )
    return None


def _is_own_origin(trust: Trust, origin: str, local_address: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or parts.path or parts.query or parts.fragment:
        return False
    return is_own(trust, parts.netloc, local_address, _DEFAULT_PORTS[parts.scheme])


class Guard:
    """`decide` for requests; `trust` is replaced once the port is known."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust

    def refusal(self, request: web.Request, route_is_open: bool) -> QueztlError | None:
        """Why this request is refused, or None."""
        headers = request.headers
        host = headers.get("Host")
        if host is not None and len(headers.getall("Host")) > 1:
            host = None
        transport = request.transport
        local = transport.get_extra_info("sockname") if transport is not None else None
        return decide(
            self.trust,
            host=host,
            local_address=str(local[0]) if isinstance(local, tuple) else "",
            origin=headers.get("Origin"),
            fetch_site=headers.get("Sec-Fetch-Site"),
            route_is_open=route_is_open,
        )
