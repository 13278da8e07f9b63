"""The addresses of this machine that the mesh uses.

By default only those of real network interfaces: the interfaces of containers, virtual machines and tunnels (docker0,
veth…, tun…) reach no other machine, or have the same address on every host. An operator may name any interface,
including loopback and virtual ones; then exactly that one is used. IPv4 only: announcements are sent to 224.0.0.251,
and other hosts of the LAN must be able to dial the announced addresses.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"

#: Names of interfaces that are not network cards on Linux, macOS and common virtualization software.
_VIRTUAL = re.compile(
    r"(docker|veth|br-|virbr|vmnet|vboxnet|vnet|lxc|lxd|cni|flannel|cali|podman|kube|tun|tap|utun|wg|tailscale"
    r"|zt|ppp|ipsec|gif|stf|awdl|llw|anpi|ap\d|bridge1\d\d|dummy|ifb|sit|gre|ip6tnl|nlmon)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Interface:
    """One network interface as the operating system describes it."""

    name: str
    addresses: tuple[str, ...]
    """IPv4 addresses."""
    flags: frozenset[str] = frozenset({"up", "multicast"})
    """up, running, loopback, multicast, …"""


@dataclass(frozen=True)
class Choice:
    """The addresses to use, and the reason when they are only loopback or none."""

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    reason: str = ""
    """Empty when there is nothing to report, else one sentence for people."""


def is_virtual(name: str) -> bool:
    """Whether `name` is that of an interface of a container, a virtual machine or a tunnel."""
    return _VIRTUAL.match(name) is not None


def is_loopback(interface: Interface) -> bool:
    """Whether `interface` reaches only this machine."""
    return "loopback" in interface.flags or interface.name in ("lo", "lo0")


def choose(interfaces: Iterable[Interface], named: str = "") -> Choice:
    """The addresses to listen on and announce, best first. Pure.

    With `named` (the name of an interface, or one of its addresses; "lo" is loopback on every system): exactly that
    interface, or no address and the reason. Without: every real interface that is up, or loopback when there is none,
    so that a machine without a network is a mesh of its own.
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
    # a link-local address (169.254…) works only with machines that have one too
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
    existing = ", ".join(interface.name for interface in known if interface.addresses) or "none"
    return Choice((), (), f"There is no interface {named} here; there are: {existing}.")


def _dialable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast or address.is_loopback)


def read_interfaces() -> tuple[Interface, ...]:
    """The network interfaces as the operating system reports them now."""
    import socket

    import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

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
    """Whether `address` belongs to a wireless interface. False where the system does not tell; Linux does."""
    names = [interface.name for interface in read_interfaces() if address in interface.addresses]
    return any(Path("/sys/class/net", name, "wireless").exists() for name in names)


def usable_addresses(named: str = "") -> Choice:
    """`choose` for the current interfaces of this machine."""
    return choose(read_interfaces(), named)
