"""The bus server: bootstrap, restart, and what it refuses."""

from __future__ import annotations

import socket
import stat

import nats
import pytest

from mesh.bus.server.bootstrap_client import Admin, AdminError
from mesh.errors import CannotStart
from tests.integration.bus_server_harness import (
    Harness,
    connect,
    declare,
    harness,
    lives,
    meta_size,
    publish,
    stored,
)

__all__ = ["harness"]


async def test_it_bootstraps_itself_as_a_group_of_one(harness: Harness) -> None:
    bus = harness.bus()
    address = await bus.start()
    assert bus.created_now and await meta_size(bus) == 1
    assert set(bus.pids) == {"server", "witness"}
    assert not list(bus.folder.glob("boot*"))
    client = await nats.connect(address.client_urls[0], allow_reconnect=False)  # no name, no password
    await declare(client)
    await publish(client, 0, 3, set())
    assert await stored(client) == {0, 1, 2}
    with pytest.raises(AdminError):  # the system account needs its password
        port = int(address.local_url.rsplit(":", 1)[1])
        await Admin.open("127.0.0.1", port, address.system_user, "wrong")
    await client.close()


async def test_only_its_owner_can_read_its_files(harness: Harness) -> None:
    bus = harness.bus()
    await bus.start()
    assert stat.S_IMODE(bus.folder.stat().st_mode) == 0o700
    for file in bus.folder.glob("*.conf"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_it_restarts_on_its_port_with_all_messages(harness: Harness) -> None:
    bus = harness.bus()
    first = await bus.start()
    client = await connect(bus)
    await declare(client)
    await publish(client, 0, 50, set())
    await client.close()
    pids = bus.pids
    await bus.stop()
    assert not any(lives(pid) for pid in pids.values())
    assert not bus.pids and not list(bus.folder.glob("*.pid"))

    again = harness.bus(client_port=4222)
    assert await again.start() == first
    assert not again.created_now and await meta_size(again) == 1
    client = await connect(again)
    assert await stored(client) == set(range(50))
    await client.close()


async def test_it_moves_from_a_taken_port_unless_the_port_is_required(harness: Harness) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        bus = harness.bus(client_port=port)
        await bus.start()
        moved = bus.address.client_urls
        assert moved != (f"nats://127.0.0.1:{port}",)
        await bus.stop()
        with pytest.raises(CannotStart, match=f"port {port} of 127.0.0.1 is taken"):
            await harness.bus(client_port=port, client_port_required=True).start()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the server's own connections linger
        other.bind(("127.0.0.1", int(moved[0].rsplit(":", 1)[1])))
        other.listen()
        bus = harness.bus()
        await bus.start()
        assert bus.address.client_urls != moved and await meta_size(bus) == 1


async def test_the_folder_of_another_node_is_refused_and_left_alone(harness: Harness) -> None:
    bus = harness.bus()
    await bus.start()
    await bus.stop()
    with pytest.raises(CannotStart, match="holds the bus of mesh mtest on node nfounder"):
        await harness.bus(node_id="nother").start()
    bus = harness.bus()
    await bus.start()
    assert not bus.created_now


async def test_clients_get_the_advertised_addresses(harness: Harness) -> None:
    bus = harness.bus(advertise=("127.0.0.2", "127.0.0.3"))
    address = await bus.start()
    port = address.local_url.rsplit(":", 1)[1]
    assert address.client_urls == (f"nats://127.0.0.2:{port}", f"nats://127.0.0.3:{port}")
    assert address.local_url == f"nats://127.0.0.1:{port}"
