"""Asking the mesh: calls of a node's API, and the status of the whole mesh, from a node's API or from the bus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.errors import BusUnavailable

#: Over the bus: how long to listen, seconds; every node sends two heartbeats a second.
LISTEN_S = 0.7
STATUS_TIMEOUT_S = 5.0


async def call_node(url: str | None, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call the API of the node that `url` names (see mesh.node_api.mesh_address); returns the JSON document.

    Raises: what mesh.node_api.call raises, and BadInput when `url` names a bus server.
    """
    from mesh.errors import BadInput
    from mesh.node_api import BUS_SCHEMES, LOCAL_API, call, mesh_address

    address = mesh_address(url)
    if address.startswith(BUS_SCHEMES):
        raise BadInput(f"this command needs a node's API, such as {LOCAL_API}, not {address!r}")
    return await call(address, method, path, body)


async def network_document(url: str | None) -> dict[str, Any]:
    """What `GET /api/v1.2/network/status` shows. Raises: BusUnavailable, BadInput.

    Over the bus alone `bus.safety` is "" and `alarms` is empty: only a node knows them.
    """
    from mesh.node_api import BUS_SCHEMES, mesh_address, network_status

    address = mesh_address(url)
    if address.startswith(BUS_SCHEMES):
        return await _from_bus(address)
    return await network_status(address, timeout_s=STATUS_TIMEOUT_S)


async def explained(url: str | None, error: BusUnavailable) -> BusUnavailable:
    """`error`, or what the node that `url` names says about the bus: while most of its servers are away, waiting is in
    vain."""
    from mesh.errors import BusUnavailable, QueztlError
    from mesh.node_api import BUS_SCHEMES, mesh_address, network_status

    try:
        address = mesh_address(url)
        if address.startswith(BUS_SCHEMES):
            return error
        document = await network_status(address, timeout_s=STATUS_TIMEOUT_S)
    except QueztlError:
        return error
    reason = document["bus"].get("standstill")
    return BusUnavailable(reason) if reason else error


async def _from_bus(urls: str) -> dict[str, Any]:
    import msgspec

    from mesh import decoding, subjects
    from mesh.client import Mesh
    from mesh.coordination import MeshRecord
    from mesh.decoding import readable
    from mesh.membership.mesh_record import read_mesh_record
    from mesh.membership.registry import Registry
    from mesh.views import BusView, NetworkView, QueueView, RegistryView

    async with Mesh(urls) as mesh:
        bus = mesh.bus
        registry = Registry(bus, "", bus.config)
        await registry.start()
        try:
            # There is no event to wait for: a node that sends no heartbeat is known only after this time.
            await asyncio.sleep(LISTEN_S)
            registry.judge()
            lease = await bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY)
            record = await read_mesh_record(bus) or MeshRecord()
            queue = await bus.stream_info(subjects.WORK)
            held = readable(decoding.lease, lease)
            leader = held.node if held else ""
            nodes = registry.view(leader)
            view = NetworkView(
                mesh=record.name,
                mesh_id=record.id,
                leader=leader,
                fence=lease.revision if lease else 0,
                bus=BusView(tuple(urls.split(","))),
                queue=QueueView(queue.messages),
                alarms=(),
                registry=RegistryView(len(nodes), nodes),
            )
            return dict(msgspec.to_builtins(view))
        finally:
            await registry.close()
