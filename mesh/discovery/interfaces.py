"""Which addresses of this machine the mesh may use.

Real network cards only: what containers, virtual machines and tunnels add (docker0, veth…, tun…) leads to
places where no other machine answers, or announces the same address on every host. A person may name any
interface, loopback and virtual ones included; then exactly that one is used. IPv4 only: the announcements are
sent to 224.0.0.251, and an address that nobody on the LAN can dial helps nobody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"

#: Names that Linux, macOS and common virtualisers give to interfaces that are not network cards.
_VIRTUAL = re.compile(
    r"(docker|veth|br-|virbr|vmnet|vboxnet|vnet|lxc|lxd|cni|flannel|cali|podman|kube|tun|tap|utun|wg|tailscale"
    r"|zt|ppp|ipsec|gif|stf|awdl|llw|anpi|ap\d|bridge1\d\d|dummy|ifb|sit|gre|ip6tnl|nlmon)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Interface:
    """One interface as the operating system describes it."""

    name: str
    addresses: tuple[str, ...]
    """IPv4 addresses."""
    flags: frozenset[str] = frozenset({"up", "multicast"})
    """up, running, loopback, multicast, …"""


@dataclass(frozen=True)
class Choice:
    """What may be used, and if that is nothing but loopback: why."""

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    reason: str = ""
    """Empty when all is well; else one sentence for people."""


def is_virtual(name: str) -> bool:
    """Whether `name` is what containers, virtual machines and tunnels call their interfaces."""
    return _VIRTUAL.match(name) is not None


def is_loopback(interface: Interface) -> bool:
    """Whether `interface` only reaches this machine."""
    return "loopback" in interface.flags or interface.name in ("lo", "lo0")


def choose(interfaces: Iterable[Interface], named: str = "") -> Choice:
    """The addresses to listen on and announce, best first; pure.

    With `named` (an interface's name, or one of its addresses; "lo" means loopback on every system) exactly
    that interface, or no address at all and the reason. Without it every real interface that is up; when
    there is none, loopback, so that a machine off the network is still a mesh of its own.
    """
    known = tuple(interfaces)
    if named:
        return _named(known, named)
    usable = [
        (interface.name, address)
        for interface in known
        if "up" in interface.flags and not is_loopback(interface) and not is_virtual(interface.name)
        for address in interface.addresses
        if _dialable(address)
    ]
    # an address the machine gave itself (169.254…) works, but only with neighbours that have none either
    usable.sort(key=lambda pair: ipaddress.ip_address(pair[1]).is_link_local)
    if not usable:
        return Choice(
            (LOOPBACK,),
            ("lo",),
            "No real network interface is up, so only nodes on this machine can be found; connect to a "
            "network, or name an interface with --interface.",
        )
    return Choice(tuple(address for _, address in usable), tuple(dict.fromkeys(name for name, _ in usable)))


def _named(known: tuple[Interface, ...], named: str) -> Choice:
    if named in ("lo", "lo0", "localhost"):
        return Choice((LOOPBACK,), ("lo",))
    for interface in known:
        if named == interface.name or named in interface.addresses:
            addresses = (named,) if named in interface.addresses else interface.addresses
            if "up" not in interface.flags or not addresses:
                return Choice((), (), f"Interface {named} is down or has no IPv4 address; bring it up first.")
            return Choice(addresses, (interface.name,))
    there = ", ".join(interface.name for interface in known if interface.addresses) or "none"
    return Choice((), (), f"There is no interface {named} here; there are: {there}.")


def _dialable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast or address.is_loopback)


def read_interfaces() -> tuple[Interface, ...]:
    """What the operating system says now."""
    import socket

    import psutil

    states = psutil.net_if_stats()
    found = []
    for name, entries in sorted(psutil.net_if_addrs().items()):
        state = states.get(name)
        flags = set(filter(None, state.flags.split(","))) if state else set()
        if state and state.isup:
            flags.add("up")
        addresses = tuple(entry.address for entry in entries if entry.family == socket.AF_INET)
        found.append(Interface(name, addresses, frozenset(flags)))
    return tuple(found)


def is_wireless(address: str) -> bool:
    """Whether the card with `address` is a wireless one, as far as the operating system tells (Linux does)."""
    names = [one.name for one in read_interfaces() if address in one.addresses]
    return any(Path("/sys/class/net", name, "wireless").exists() for name in names)


def usable_addresses(named: str = "") -> Choice:
    """`choose` over this machine's interfaces as they are now."""
    return choose(read_interfaces(), named)
