"""Three bus servers on one machine, made by hand: joining, the danger of newcomers that meet, a rescue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.bus.client import Bus
from mesh.bus.errors import ApiError
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.data_dir import read_marker
from mesh.bus.server.supervisor import BusServer
from mesh.bus.streams import declare_streams
from mesh.cluster import quorum_recovery, raft_meta, replicas
from mesh.config import LAN
from mesh.errors import BusUnavailable
from tests.integration.bus_server_harness import SETTINGS
from tests.nodes import eventually

pytestmark = pytest.mark.timeout(120)
MESSAGES = 200


class Trio:
    """Bus servers a, b and c, and more where a test wants them; whatever was started is stopped with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[str, BusServer] = {}
        self._buses: list[Bus] = []

    async def start(self, node: str, *join: str) -> BusServer:
        settings = replace(SETTINGS, node_id=node, store_max_bytes=1 << 50)
        server = self.servers[node] = BusServer(self.folder / node, settings, lambda *_: None)
        await server.start(join=[route for one in join for route in self.servers[one].routes])
        return server

    async def connect(self, system: bool = False) -> Bus:
        urls = [url for one in self.servers.values() if one.pids for url in one.address.client_urls]
        user = {"user": SYSTEM_USER, "password": SETTINGS.system_password} if system else {}
        bus = await Bus.connect(urls, name="test", **user)
        self._buses.append(bus)
        return bus

    async def introduce(self) -> None:
        """Give each server the routes of the others, as its node does."""
        living = [one for one in self.servers.values() if one.pids]
        for one in living:
            await one.set_peers([route for other in living if other is not one for route in other.routes])

    async def cut(self) -> None:
        """A power cut: every process is killed at once and stays dead."""
        for server in self.servers.values():
            server._stopping.set()
            for pid in server.pids.values():
                os.kill(pid, signal.SIGKILL)
        for server in self.servers.values():
            await server.stop()

    async def groups(self, system: Bus) -> dict[str, raft_meta.Group]:
        """The group as each server reports it itself."""
        names = [one.name for one in self.servers.values()]
        return raft_meta.read_groups(await raft_meta.ask_all(system, known=names), names)

    async def group(self, system: Bus) -> raft_meta.Group | None:
        names = [one.name for one in self.servers.values() if one.pids]
        return raft_meta.leaders_view(raft_meta.read_groups(await raft_meta.ask_all(system), names))

    async def until_group_of(self, system: Bus, size: int) -> None:
        async def there() -> bool:
            group = await self.group(system)
            return group is not None and len(group.members) == size and all(group.members.values())

        await eventually(there, 30, f"a group of {size}")

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
    """A lone server with messages in a stream."""
    await trio.start("a")
    bus = await trio.connect()
    await declare_streams(bus, LAN, 10**10)
    for number in range(MESSAGES):
        await bus.store(f"work.echo.any.normal.s-{number}", b"x")
    return bus


async def _grow(trio: Trio, bus: Bus) -> Bus:
    """Have b and c join a, with three copies of everything; a connection to the system account."""
    await trio.start("b", "a")
    system = await trio.connect(system=True)
    await trio.until_group_of(system, 2)
    await trio.start("c", "a", "b")
    await trio.until_group_of(system, 3)
    every = {stream.name for stream in await raft_meta.list_streams(bus)}

    async def scaled() -> bool:
        few = [one.name for one in await raft_meta.list_streams(bus) if one.replicas < 3]
        with contextlib.suppress(ApiError):  # a server just heard of is "offline" for a moment: asked again, as ever
            for name in few:
                await bus.update_stream(name, num_replicas=3)
        return not few

    await eventually(scaled, 30, "three copies of everything asked for")
    judge = replicas.Replicas()

    async def copied() -> bool:
        held = replicas.read_held(await raft_meta.ask_all(system, streams=True))
        streams = judge.judge(await raft_meta.list_streams(bus), held)
        assert {one.name for one in streams} == every, "one that is busy electing its leader is there, too"
        work = next(one for one in streams if one.name == "WORK")
        assert all(held["WORK"][one] == MESSAGES for one in work.current), "called whole, and holds nothing"
        return all(len(one.current) == 3 for one in streams)

    await eventually(copied, 30, "three copies of everything")
    return system


async def _count(bus: Bus) -> int:
    return int((await bus.api("STREAM.INFO.WORK"))["state"]["messages"])


async def test_two_newcomers_that_meet_wipe_nothing(trio: Trio) -> None:
    """With one route each they elected a leader between themselves, and its catalogue, an empty one, won."""
    bus = await _filled(trio)
    await asyncio.gather(trio.start("b", "a"), trio.start("c", "a"))
    system = await trio.connect(system=True)
    await trio.until_group_of(system, 3)
    assert await _count(bus) == MESSAGES
    marker = read_marker(trio.folder / "b")
    assert marker is not None and marker.server_name == trio.servers["b"].name != "b"
    assert marker.peers == trio.servers["a"].routes


async def test_one_that_was_taken_out_comes_back_under_another_name(trio: Trio) -> None:
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


async def test_a_rescue_goes_on_with_what_is_left(trio: Trio) -> None:
    bus = await _filled(trio)
    system = await _grow(trio, bus)
    await trio.servers["b"].stop()
    await trio.servers["c"].stop()

    async def lost() -> bool:
        return (await quorum_recovery.look(system)).needs_rescue

    await eventually(lost, 40, "the majority is lost")
    with pytest.raises(BusUnavailable):
        await bus.store("work.echo.any.normal.s-lost", b"x", timeout_s=1.0)
    said: list[str] = []
    await quorum_recovery.rescue(system, bus, said.append)
    group = await trio.group(system)
    assert group is not None and list(group.members) == ["a"], said
    assert await _count(bus) >= MESSAGES
    await bus.store("work.echo.any.normal.s-more", b"x", resend=True, timeout_s=20.0)
    assert all(one.replicas == 1 for one in await raft_meta.list_streams(bus))
    assert not (await quorum_recovery.look(system)).needs_rescue
