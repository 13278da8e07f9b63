"""Three bus servers on one machine, started by the test: joining, newcomers that meet, a rescue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.bus.client import Bus
from mesh.bus.errors import ApiError
from mesh.bus.server import data_dir
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.data_dir import read_marker
from mesh.bus.server.supervisor import BusServer
from mesh.bus.streams import declare_streams
from mesh.cluster import quorum_recovery, raft_meta, replicas, upkeep
from mesh.cluster.steps import MoveStreams, Scale
from mesh.config import LAN
from mesh.errors import BusUnavailable
from tests.integration.bus_server_harness import SETTINGS
from tests.nodes import eventually

pytestmark = pytest.mark.timeout(120)
MESSAGES = 200


class Trio:
    """Bus servers a, b and c, and more where a test needs them; all are stopped with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[str, BusServer] = {}
        self._buses: list[Bus] = []

    async def start(self, node: str, *join: str) -> BusServer:
        settings = replace(SETTINGS, node_id=node, store_max_bytes=1 << 50)
        server = self.servers[node] = BusServer(self.folder / node, settings, lambda *_: None)
        await server.start(join=[route for peer in join for route in self.servers[peer].routes])
        return server

    async def connect(self, system: bool = False) -> Bus:
        urls = [url for server in self.servers.values() if server.pids for url in server.address.client_urls]
        user = {"user": SYSTEM_USER, "password": SETTINGS.system_password} if system else {}
        bus = await Bus.connect(urls, name="test", **user)
        self._buses.append(bus)
        return bus

    async def introduce(self) -> None:
        """Give each server the routes of the others, as its node does."""
        living = [server for server in self.servers.values() if server.pids]
        for server in living:
            await server.set_peers([route for other in living if other is not server for route in other.routes])

    async def cut(self) -> None:
        """A power cut: every process is killed at once and stays dead."""
        for server in self.servers.values():
            server._stopping.set()
            for pid in server.pids.values():
                os.kill(pid, signal.SIGKILL)
        for server in self.servers.values():
            await server.stop()

    async def groups(self, system: Bus) -> dict[str, raft_meta.Group]:
        """The group as each server reports it."""
        names = [server.name for server in self.servers.values()]
        return raft_meta.read_groups(await raft_meta.ask_all(system, known=names), names)

    async def group(self, system: Bus) -> raft_meta.Group | None:
        names = [server.name for server in self.servers.values() if server.pids]
        return raft_meta.leaders_view(raft_meta.read_groups(await raft_meta.ask_all(system), names))

    async def until_group_of(self, system: Bus, size: int) -> None:
        async def complete() -> bool:
            group = await self.group(system)
            return group is not None and len(group.members) == size and all(group.members.values())

        await eventually(complete, 30, f"a group of {size}")

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()
        for server in self.servers.values():
            await server.stop()


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    made = Trio(tmp_path)
    yield made
    await made.close()


async def _filled(trio: Trio) -> Bus:
    """A single server with messages in a stream."""
    await trio.start("a")
    bus = await trio.connect()
    await declare_streams(bus, LAN, 10**10)
    for number in range(MESSAGES):
        await bus.store(f"work.echo.any.normal.s-{number}", b"x")
    return bus


async def _grow(trio: Trio, bus: Bus) -> Bus:
    """Let b and c join a, with three copies of every stream; returns a connection to the system account."""
    await trio.start("b", "a")
    system = await trio.connect(system=True)
    await trio.until_group_of(system, 2)
    await trio.start("c", "a", "b")
    await trio.until_group_of(system, 3)
    every = {stream.name for stream in await raft_meta.list_streams(bus)}

    async def scaled() -> bool:
        few = [stream.name for stream in await raft_meta.list_streams(bus) if stream.replicas < 3]
        with contextlib.suppress(ApiError):  # a server that just joined is "offline" for a moment: the loop retries
            for name in few:
                await bus.update_stream(name, num_replicas=3)
        return not few

    await eventually(scaled, 30, "three copies of every stream configured")
    judge = replicas.Replicas()

    async def copied() -> bool:
        held = replicas.read_held(await raft_meta.ask_all(system, streams=True))
        streams = judge.judge(await raft_meta.list_streams(bus), held)
        assert {stream.name for stream in streams} == every, "a stream that elects its leader is listed too"
        work = next(stream for stream in streams if stream.name == "WORK")
        answered = held.get("WORK", {})
        counts = [answered[server] for server in work.current if server in answered]
        assert all(count == MESSAGES for count in counts), "a current copy holds all messages"
        return all(len(stream.current) == 3 for stream in streams)

    await eventually(copied, 30, "three current copies of every stream")
    return system


async def _count(bus: Bus) -> int:
    return int((await bus.api("STREAM.INFO.WORK"))["state"]["messages"])


async def test_two_newcomers_that_meet_wipe_nothing(trio: Trio) -> None:
    """With one route each, two newcomers could elect a leader between themselves, whose empty catalogue won."""
    bus = await _filled(trio)
    await asyncio.gather(trio.start("b", "a"), trio.start("c", "a"))
    system = await trio.connect(system=True)
    await trio.until_group_of(system, 3)
    assert await _count(bus) == MESSAGES
    marker = read_marker(trio.folder / "b")
    assert marker is not None and marker.server_name == trio.servers["b"].name != "b"
    assert marker.peers == trio.servers["a"].routes


async def test_a_removed_server_returns_under_another_name(trio: Trio) -> None:
    bus = await _filled(trio)
    system = await trio.connect(system=True)
    before = (await trio.start("b", "a")).name
    await trio.until_group_of(system, 2)
    await raft_meta.remove(system, before)
    await trio.until_group_of(system, 1)
    await trio.servers["b"].retire()
    assert read_marker(trio.folder / "b") is None and (trio.folder / "b" / "store.removed").is_dir()
    assert (await trio.start("b", "a")).name != before
    await trio.until_group_of(system, 2)
    assert await _count(bus) == MESSAGES


async def test_a_port_that_another_process_took_meanwhile_is_replaced(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the choice of a port and its use, another process may take it: at each kind of start."""
    choose, taken = data_dir.free_port, list[int]()

    def choose_a_taken_one_first(host: str, preferred: int = 0, others: tuple[int, ...] = ()) -> int:
        return taken.pop() if taken else choose(host, preferred, others)

    monkeypatch.setattr(data_dir, "free_port", choose_a_taken_one_first)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for node, join in (("a", ()), ("b", ("a",))):
            taken.append(port)
            server = await trio.start(node, *join)
            assert not taken and port not in {route_port for _, route_port in server.routes}
        await server.stop()
        taken.append(port)
        await server.start()
        assert not taken and server.pids


async def test_a_server_that_died_takes_another_port_where_its_own_was_taken(trio: Trio) -> None:
    await _filled(trio)
    server = trio.servers["a"]
    before = server.routes
    os.kill(server.pids["server"], signal.SIGKILL)
    others: list[socket.socket] = []
    while not others:  # without a turn of the event loop, so before the server is started again
        with contextlib.suppress(OSError):
            others.append(socket.create_server(before[0]))

    async def serves() -> bool:
        return server.is_ready and server.routes != before

    await eventually(serves, 30, "it serves at another port")
    others[0].close()
    marker = data_dir.read_marker(trio.folder / "a")
    assert marker is not None and marker.cluster_port == server.routes[0][1]
    bus = await trio.connect()
    assert (await bus.stream_info("WORK")).messages == MESSAGES


async def test_a_rescue_continues_with_the_remaining_server(trio: Trio) -> None:
    bus = await _filled(trio)
    system = await _grow(trio, bus)
    await trio.servers["b"].stop()
    await trio.servers["c"].stop()

    async def lost() -> bool:
        return (await quorum_recovery.look(system)).needs_rescue

    await eventually(lost, 40, "the majority is lost")
    with pytest.raises(BusUnavailable):
        await bus.store("work.echo.any.normal.s-lost", b"x", timeout_s=1.0)
    steps: list[str] = []
    await quorum_recovery.rescue(system, bus, steps.append)
    group = await trio.group(system)
    assert group is not None and list(group.members) == ["a"], steps
    assert await _count(bus) >= MESSAGES
    await bus.store("work.echo.any.normal.s-more", b"x", resend=True, timeout_s=20.0)
    assert all(stream.replicas == 1 for stream in await raft_meta.list_streams(bus))
    assert not (await quorum_recovery.look(system)).needs_rescue


@pytest.mark.long
async def test_a_copy_that_differs_from_the_others_is_found_and_made_anew(trio: Trio) -> None:
    """It lost a block and has the last sequence all the same, so Raft counts it as current, for ever."""
    bus = await _filled(trio)
    system = await _grow(trio, bus)
    await trio.introduce()
    for number in range(12):  # a block of a bucket holds 8 MB
        await bus.kv("mesh").put(f"server.k{number}", bytes(1_000_000))
    await eventually(lambda: _alike(trio, system), 30, "all copies are alike")
    await trio.servers["c"].stop()
    (trio.folder / "c" / "store" / "jetstream" / "MESH" / "streams" / "KV_mesh" / "msgs" / "1.blk").unlink()
    await trio.start("c")
    now, judge = 0.0, replicas.Replicas(lambda: now)
    await eventually(lambda: _is_current(bus), 30, "the servers call every copy current")
    assert not await _alike(trio, system), "they do so although one lacks messages"
    for look in range(40):
        now += upkeep.DIFFER_S if look < 2 else 0.0
        states = replicas.read_states(await raft_meta.ask_all(system, streams=True, known=_names(trio)))
        streams = judge.compare(await raft_meta.list_streams(bus), states)
        match upkeep.repair_copies(streams):
            case MoveStreams(names, to):
                await bus.move_leader(names[0], to)
            case Scale(names, replicas=1):
                assert names == ("KV_mesh",)
                await bus.update_stream(names[0], num_replicas=1)
                await eventually(lambda: _removed(trio, bus, system), 30, "the other copies are removed")
                await bus.update_stream(names[0], num_replicas=3)
                break
        await asyncio.sleep(0.5)
    await eventually(lambda: _alike(trio, system), 30, "all copies are alike again")
    assert len(await bus.kv("mesh").keys()) >= 12


def _names(trio: Trio) -> list[str]:
    return [server.name for server in trio.servers.values()]


async def _is_current(bus: Bus) -> bool:
    found = next(stream for stream in await raft_meta.list_streams(bus) if stream.name == "KV_mesh")
    return len(found.current) == 3


async def _removed(trio: Trio, bus: Bus, system: Bus) -> bool:
    states = replicas.read_states(await raft_meta.ask_all(system, streams=True, known=_names(trio)))
    streams = replicas.Replicas().compare(await raft_meta.list_streams(bus), states)
    return not next(stream.leftovers for stream in streams if stream.name == "KV_mesh")


async def _alike(trio: Trio, system: Bus) -> bool:
    states = replicas.read_states(await raft_meta.ask_all(system, streams=True, known=_names(trio)))
    return len(states.get("KV_mesh", {})) == 3 and len(set(states["KV_mesh"].values())) == 1
