"""A machine changes its network while its node runs: a card comes or goes, an address is another one now.

The loop beside `mesh/discovery/interfaces.py`, which decides what may be used. Connections that the old address carried
are re-made by themselves; what others must know is announced anew, written into the record, and told of the bus server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh.discovery.announcement import MEMBER, Announcement
from mesh.discovery.interfaces import usable_addresses
from mesh.discovery.mdns import Discovery
from mesh.errors import QueztlError

if TYPE_CHECKING:
    from node.daemon import Node

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0


async def watch_network(node: Node) -> None:
    """Follow this machine's addresses until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if not node.bus.connected:
            # The bus may have moved as well; whoever is still on it announces where it is.
            node.bus.learn(announced_urls(node.discovery.peers(), node.joined.mesh.id))
        choice = await asyncio.to_thread(usable_addresses, node.config.interface)
        # No address at all is a cable that is out: the old one is likely to come back, and nobody could be told.
        if not choice.addresses or choice.addresses == node.addresses or choice.reason:
            continue
        log.info("this machine's addresses are %s now", ", ".join(choice.addresses))
        await move(node, choice.addresses)


def announced_urls(peers: Iterable[Announcement], mesh_id: str) -> list[str]:
    """Where members of this very mesh say that the bus is. Pure."""
    return [url for one in peers if one.mesh_id == mesh_id and one.role == MEMBER for url in one.urls]


async def move(node: Node, addresses: tuple[str, ...]) -> None:
    """Be found at `addresses` from now on."""
    node.addresses = addresses
    old, node.discovery = node.discovery, Discovery(addresses)
    await old.stop()
    await node.discovery.start()
    try:
        await node.bus_host.move(addresses)
        await node.tell_where_it_is()
    except QueztlError as error:
        # Told again when the bus is back (Node._on_back).
        log.info("the new addresses could not be told yet: %s", error.message)
