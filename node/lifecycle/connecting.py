"""The connections of a node to a bus, and the settings of a bus server that it hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mesh.bus.client import Bus
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.layout import BusSettings
from mesh.discovery.identity import DataDir, MeshIdentity
from mesh.limits import fit_to_descriptors
from mesh.membership.connections import connection_name, system_password
from node.config import NodeConfig
from node.probes import descriptors


async def connect(config: NodeConfig, data: DataDir, urls: tuple[str, ...]) -> Bus:
    """The connection of this node, under its name. Raises: BusUnavailable."""
    name = connection_name(data.node_id, data.incarnation)
    return await Bus.connect(urls, name=name, config=config.mesh_config)


async def open_system(urls: tuple[str, ...], mesh_id: str, name: str, config: NodeConfig) -> Bus:
    """A connection to the system account of the bus, which shows and ends connections. Raises: BusUnavailable."""
    return await Bus.connect(
        urls, name=name, config=config.mesh_config, user=SYSTEM_USER, password=system_password(mesh_id)
    )


def connector(config: NodeConfig, node: str) -> Callable[[tuple[str, ...]], Awaitable[Bus]]:
    """A function that connects to the bus of another mesh, given its URLs. It raises BusUnavailable."""

    async def connect(urls: tuple[str, ...]) -> Bus:
        return await Bus.connect(urls, name=f"duplicate-mesh detector {node}", config=config.mesh_config)

    return connect


def bus_settings(config: NodeConfig, data: DataDir, mesh: MeshIdentity, addresses: tuple[str, ...]) -> BusSettings:
    """The settings of a bus server that this node hosts.

    On a named loopback interface it is reachable from this machine only. Where no network is up yet it listens on every
    address, so that it need not restart when the network comes.
    """
    offline = all(address.startswith("127.") for address in addresses)
    local = offline and bool(config.interface)
    return BusSettings(
        mesh_id=mesh.id,
        mesh_name=mesh.name,
        node_id=data.node_id,
        system_password=system_password(mesh.id),
        bind_host="127.0.0.1" if local else "0.0.0.0",
        advertise=() if offline else addresses,
        client_port=config.bus_port or 4222,
        client_port_required=bool(config.bus_port),
        sync_interval_s=config.mesh_config.storage_sync_s,
        max_connections=fit_to_descriptors(config.mesh_config.limits, descriptors.hard_limit()).bus_connections,
    )
