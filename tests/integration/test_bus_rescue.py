"""Bus servers that have lost each other: rescued from a data directory, found at new addresses."""

from __future__ import annotations

import json
import shlex
import socket
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from mesh.bus.server.data_dir import Member
from mesh.bus.server.introduction import routes_of
from mesh.discovery.announcement import SEEKER, Announcement
from mesh.discovery.identity import MeshIdentity, open_data_dir
from mesh.errors import QueztlError
from node.lifecycle.peer_routes import PeerRoutes
from tests.integration.bus_server_harness import SETTINGS
from tests.integration.queztl_process import queztl
from tests.integration.test_bus_cluster import MESSAGES, Trio, _count, _filled, trio
from tests.nodes import eventually

__all__ = ["trio"]
pytestmark = pytest.mark.timeout(120)


async def _three(trio: Trio) -> None:
    """Three servers that know each other by name and route, with messages in a stream on the first."""
    await _filled(trio)
    system = await trio.connect(system=True)
    await trio.start("b", "a")
    await trio.until_group_of(system, 2)
    await trio.start("c", "a", "b")
    await trio.until_group_of(system, 3)
    for server in trio.servers.values():
        others = [other for other in trio.servers.values() if other is not server]
        members = [Member(other.name, other.routes) for other in others]
        await server.set_peers([route for other in others for route in other.routes], members)


def _data_directory(trio: Trio, node: str, path: Path) -> Path:
    """The folder of a server as the data directory of its node."""
    mesh = MeshIdentity(SETTINGS.mesh_id, SETTINGS.mesh_name, 1.0, node)
    path.mkdir()
    (trio.folder / node).rename(path / "bus")
    stored = {"version": 1, "node_id": node, "mesh": asdict(mesh), "bus_urls": []}
    (path / "node.json").write_text(json.dumps(stored))
    return path


async def test_a_stopped_node_that_lost_the_majority_is_rescued_from_its_data_directory(
    trio: Trio, tmp_path: Path
) -> None:
    """`queztl bus` shows who is missing, and the command for the case that they are lost for good. It does that."""
    await _three(trio)
    await trio.cut()
    data = _data_directory(trio, "a", tmp_path / "data")
    shown = await queztl("bus", "--data", data)
    lost = [trio.servers[node] for node in ("b", "c")]
    assert shown.code == 3 and "one of 3" in shown.out and "2 of the 3 bus servers must run" in shown.out, shown.out
    assert all(f"{server.settings.node_id} (last at {server.routes[0][0]})" in shown.out for server in lost)
    command = shown.out.strip().rpartition("lost for good: ")[2]
    done = await queztl(*shlex.split(command)[1:])
    assert done.code == 0 and "done: the mesh continues" in done.out and f"--data {data}" in done.out, (
        done.out + done.err
    )
    (data / "bus").rename(trio.folder / "a")
    await trio.start("a")
    bus = await trio.connect()
    assert await _count(bus) == MESSAGES
    open_data_dir(data).close()


async def test_a_directory_without_a_bus_server_can_not_be_rescued(tmp_path: Path) -> None:
    refused = await queztl("bus", "rescue", "--data", tmp_path, "--yes")
    assert refused.code == 4 and "holds no bus server" in refused.err


async def test_servers_that_all_have_new_addresses_find_each_other_by_what_they_announce(trio: Trio) -> None:
    """Their ports stand in for their addresses. Strangers are announced beside them."""
    await _three(trio)
    await trio.cut()
    with ExitStack() as taken:
        for server in trio.servers.values():
            listener = taken.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", server.routes[0][1]))
            listener.listen()
        before = {node: server.routes for node, server in trio.servers.items()}
        for node in ("a", "b", "c"):
            await trio.start(node)
    servers = trio.servers
    assert all(servers[node].routes != before[node] for node in servers)

    def announced(node: str, mesh: str, routes: tuple[tuple[str, int], ...]) -> Announcement:
        return Announcement("test", mesh, "", node, (), SEEKER, routes=routes)

    peers = [announced(node, SETTINGS.mesh_id, server.routes) for node, server in servers.items()]
    strangers = [
        announced("b", "mother", (("127.0.0.1", 1001),)),
        announced("d", SETTINGS.mesh_id, (("127.0.0.1", 1002),)),
    ]
    for node, server in servers.items():
        found = PeerRoutes(SETTINGS.mesh_id, lambda: [*peers, *strangers])
        if node == "c":  # it hears nobody, and is given the address of one of them
            found = PeerRoutes(SETTINGS.mesh_id, tuple, [servers["a"].address.local_url])
        await found.find(server)
        assert set(servers["a"].routes) <= {*server.peers, *server.routes}
        assert {1001, 1002}.isdisjoint(port for _, port in server.peers)
    system = await trio.connect(system=True)
    names = {server.name for server in servers.values()}

    async def together() -> bool:
        group = await trio.group(system)
        return group is not None and set(group.members) == names and all(group.members.values())

    await eventually(together, 60, "one group of the three")
    bus = await trio.connect()

    async def serves() -> bool:
        try:
            return await _count(bus) == MESSAGES
        except QueztlError:  # the stream elects its leader after the group did
            return False

    await eventually(serves, 30, "the stream has all its messages")


async def test_a_bus_server_is_only_introduced_to_those_of_its_own_mesh(trio: Trio) -> None:
    """A remembered address may belong to another mesh by now."""
    server = await trio.start("a")
    url, password = server.address.local_url, SETTINGS.system_password
    assert await routes_of([url, "nats://127.0.0.1:1", "nats://x"], SETTINGS.mesh_id, password) == {
        url: server.routes[0]
    }
    assert await routes_of([url], "mother", password) == {}
    assert await routes_of([url], SETTINGS.mesh_id, "open-mother") == {}
