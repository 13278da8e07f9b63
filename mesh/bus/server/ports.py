"""The ports of a bus server: those it had, or free ones."""

from __future__ import annotations

from dataclasses import replace

from mesh.bus.server import data_dir
from mesh.bus.server.config import render
from mesh.bus.server.data_dir import BusMarker
from mesh.bus.server.layout import LOOPBACK, BusSettings, Layout
from mesh.bus.server.process import ServerProcess
from mesh.errors import CannotStart

#: Where other servers connect if that port is free: one number a firewall can be told of. nats-server's own default.
_CLUSTER_PORT = 6222


def choose(settings: BusSettings, was: BusMarker | None) -> BusMarker:
    """`was` with ports that are free now; without it, a new server's. Raises: CannotStart when a required one is taken,
    or the host is no address of this machine."""
    host = settings.bind_host
    preferred = settings.client_port
    if settings.client_port_required:
        if not data_dir.port_is_free(host, preferred):
            raise CannotStart(f"port {preferred} of {host} is taken; free it or give the bus another port")
    elif was is not None:
        preferred = was.client_port
    client = data_dir.free_port(host, preferred)
    cluster = data_dir.free_port(host, was.cluster_port if was else _CLUSTER_PORT, (client,))
    witness = data_dir.free_port(LOOPBACK, was.witness_port if was else 0, (client, cluster))
    if was is not None:
        return replace(was, client_port=client, cluster_port=cluster, witness_port=witness)
    return BusMarker(settings.mesh_id, settings.node_id, client, cluster, witness)


def renew(layout: Layout, marker: BusMarker, server: ServerProcess, witness: ServerProcess | None) -> BusMarker:
    """`marker`, with other ports in place of those that another process took while `server` was down.

    The next launches of both use them; the node publishes them. Raises: CannotStart, see `choose`.
    """
    renewed = choose(layout.settings, marker)
    if renewed == marker:
        return marker
    server.write_config(render(layout.server(renewed)))
    data_dir.write_marker(layout.folder, renewed)
    if renewed.witness_port != marker.witness_port and witness is not None:
        witness.write_config(layout.witness(renewed))
        witness.kill()  # it is started again at once
    return renewed
