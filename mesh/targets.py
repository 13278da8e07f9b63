"""Web targets: the canonical form of HOST:PORT, and which addresses tasks may never contact. Pure.

The canonical form makes targets comparable as text. `node/workloads/web/targets.py` resolves the names.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
#: Numbers that system resolvers accept in an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Never contacted, even if an operator lists them: cloud metadata services, which hand out keys, and addresses that do
#: not belong to one host.
_FORBIDDEN: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "is no host's address"),
    ("169.254.0.0/16", "is link-local, where clouds serve a machine's metadata and keys"),
    ("100.100.100.200/32", "is a cloud's metadata address"),
    ("168.63.129.16/32", "is a cloud's metadata address"),
    ("192.0.0.192/32", "is a cloud's metadata address"),
    ("224.0.0.0/4", "is a multicast address"),
    ("240.0.0.0/4", "is a reserved or broadcast address"),
    ("::/128", "is no host's address"),
    ("fe80::/10", "is link-local, where clouds serve a machine's metadata and keys"),
    ("fec0::/10", "is site-local, which is obsolete"),
    ("fd00:ec2::/32", "is a cloud's metadata address"),
    ("fd20:ce::254/128", "is a cloud's metadata address"),
    ("ff00::/8", "is a multicast address"),
)
_NETWORKS = [(ipaddress.ip_network(network), why) for network, why in _FORBIDDEN]
#: IPv6 networks whose addresses gateways translate to the IPv4 address in the last four bytes.
_TRANSLATED = [
    ipaddress.IPv6Network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")
]


def parse(text: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT"; the host is a DNS name in lower case, or an address in canonical form.

    Raises: ValueError with a phrase: no port, an impossible name, an address in another form.
    """
    host, colon, port = text.strip().lower().rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT, such as 192.0.2.7:8080 or [2001:db8::7]:80")
    if host.startswith("[") and host.endswith("]"):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("has no IPv6 address in its brackets") from None
        if address.scope_id:
            raise ValueError("must be an address without a zone")
        return str(address), int(port)
    labels = host.removesuffix(".").split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host)), int(port)
        except ValueError:
            raise ValueError("must write an IPv4 address as four decimal numbers without leading zeros") from None
    if len(host) > 253 or not host.isascii() or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("has no host name that can be looked up (write an IPv6 address in brackets)")
    return ".".join(labels), int(port)


def canonical(text: str) -> str:
    """The canonical form of a target: "EXAMPLE.org.:080" becomes "example.org:80". Raises: as `parse`."""
    host, port = parse(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def forms(address: _Address) -> list[_Address]:
    """`address`, and every IPv4 address that it embeds."""
    found: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        embedded = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
        found += [form for form in embedded if form is not None]
        if any(address in network for network in _TRANSLATED):
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def forbidden(address: str) -> str | None:
    """Why `address`, as a resolver returns it, must not be contacted, as a phrase; None when it may be."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "is not an address"
    if parsed == ipaddress.IPv6Address("::1"):
        return None
    for form in forms(parsed):
        for network, why in _NETWORKS:
            if form.version == network.version and form in network:
                return why
    return None


def _is_loopback(address: str) -> bool:
    return any(form.is_loopback for form in forms(ipaddress.ip_address(address.partition("%")[0])))


def decide(target: str, listed: Sequence[str], addresses: Sequence[str]) -> str:
    """The address to contact for `target` ("HOST:PORT"), chosen from the `addresses` of its host.

    Raises: ValueError with a phrase: the target is not listed, has no address, or one of its addresses is forbidden (a
    name with one forbidden address is not trusted with the others). A name other than localhost must not resolve to
    this machine: its owner, not the operator, would choose a service of this machine.
    """
    if target not in listed:
        raise ValueError("is not listed by the operator of this node, who does it with --web-target HOST:PORT")
    if not addresses:
        raise ValueError("has no address")
    host, _ = parse(target)
    for address in addresses:
        if why := forbidden(address):
            raise ValueError(f"leads to {address}, which {why}: it is never contacted")
        if host != "localhost" and not is_address(host) and _is_loopback(address):
            raise ValueError(f"leads to {address}, this machine itself; the operator may list that address instead")
    return addresses[0]


def is_address(host: str) -> bool:
    """Whether `host` is an address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
