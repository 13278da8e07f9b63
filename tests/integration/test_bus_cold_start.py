"""The Raft group size of bus servers that start after a power cut, some of them late or never."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.bus.client import Bus
from mesh.bus.errors import ApiError
from mesh.bus.server import data_dir
from mesh.bus.server.binary import find_server
from mesh.bus.server.config import render
from mesh.bus.server.layout import Layout
from mesh.bus.server.process import ServerProcess
from mesh.bus.streams import declare_lane, list_lanes
from mesh.cluster import quorum_recovery, raft_meta
from tests.integration.bus_server_harness import SETTINGS
from tests.integration.test_bus_cluster import MESSAGES, Trio, _count, _filled, _grow, trio
from tests.nodes import eventually

LANES = ("echo", *(f"kind{number}" for number in range(7)))

__all__ = ["trio"]
pytestmark = pytest.mark.timeout(120)


async def _three(trio: Trio) -> tuple[Bus, Bus]:
    """Start three servers with routes to each other; the streams stay on the first."""
    bus = await _filled(trio)
    system = await trio.connect(system=True)
    await trio.start("b", "a")
    await trio.until_group_of(system, 2)
    await trio.start("c", "a", "b")
    await trio.until_group_of(system, 3)
    await trio.introduce()
    return bus, system


async def _until_led(trio: Trio, system: Bus) -> dict[str, raft_meta.Group]:
    groups: dict[str, raft_meta.Group] = {}

    async def led() -> bool:
        nonlocal groups
        groups = await trio.groups(system)
        return any(group.leader == name for name, group in groups.items())

    await eventually(led, 30, "a leader")
    return groups


async def test_a_server_that_starts_late_after_a_power_cut_keeps_the_group_size(trio: Trio) -> None:
    """The two others must not lower it to two ("Adjusting JetStream expected peer set size")."""
    bus, system = await _three(trio)
    await trio.cut()
    await trio.start("a")
    await trio.start("b")
    groups = await _until_led(trio, system)
    assert {name: group.size for name, group in groups.items()} == dict.fromkeys(groups, 3)
    await trio.start("c")
    await trio.until_group_of(system, 3)
    groups = await trio.groups(system)
    names = {server.name for server in trio.servers.values()}
    reported = {name: (group.size, set(group.members)) for name, group in groups.items()}
    assert reported == dict.fromkeys(names, (3, names))
    assert await _count(bus) == MESSAGES


async def test_the_last_of_three_is_rescued_after_a_restart_and_serves_alone(trio: Trio) -> None:
    """Both need the witness: Raft starts only once another server is connected."""
    bus, system = await _three(trio)
    await trio.cut()
    await trio.start("a")  # without a majority it does not serve, and start does not fail
    found = await quorum_recovery.look(system)
    assert found.needs_rescue and found.size == 3
    messages: list[str] = []
    await quorum_recovery.rescue(system, bus, messages.append)
    assert await _count(bus) == MESSAGES
    await trio.cut()
    await trio.start("a")  # its data directory still names the lost peers
    group = await trio.group(system)
    assert group is not None and (group.size, list(group.members)) == (1, ["a"]), messages
    assert await _count(bus) == MESSAGES


async def test_a_copy_that_came_by_growth_is_rescued_alone_after_a_restart(trio: Trio) -> None:
    """The logs of its idle streams and consumers ended with its own admission, and it never campaigned: some streams
    and some lanes had no leader, for ever."""
    bus = await _filled(trio)
    for kind in LANES:
        await declare_lane(bus, kind, "any", "normal")
    await _grow(trio, bus)
    await trio.introduce()
    names = [stream.name for stream in await raft_meta.list_streams(bus)]
    for name in names:
        await bus.append_entry(name)

    async def everywhere() -> bool:
        infos = [await bus.api(f"STREAM.INFO.{name}") for name in names]
        return not any(replica.get("lag") for info in infos for replica in info["cluster"]["replicas"])

    await eventually(everywhere, 10, "every copy has the entry")
    await trio.cut()
    await trio.start("b")
    trio.servers = {"b": trio.servers["b"]}
    system, bus, messages = await trio.connect(system=True), await trio.connect(), list[str]()
    await quorum_recovery.rescue(system, bus, messages.append)
    streams = await raft_meta.list_streams(bus)
    assert all(stream.leader and stream.replicas == 1 for stream in streams), (streams, messages)

    async def complete() -> bool:
        with contextlib.suppress(ApiError):  # "stream not found", while the server makes one copy of three
            return await _count(bus) == MESSAGES
        return False

    await eventually(complete, 20, "all messages")
    assert not (await quorum_recovery.look(system)).needs_rescue
    for stream, durables in (("WORK", {"ingress", *(f"{kind}~any~normal" for kind in LANES)}), ("LATER", {"due"})):
        listed = await bus.list_consumers(stream)
        assert not listed.silent and {consumer.name for consumer in listed.consumers} == durables, messages
    waiting = {name: lane.waiting for (name, _, _), lane in (await list_lanes(bus)).items()}
    assert waiting == {kind: MESSAGES if kind == "echo" else 0 for kind in LANES}, "nothing that waited is lost"


@pytest.fixture
async def olds(tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Witnesses of earlier versions; stopped with the test."""
    made: list[ServerProcess] = []
    yield made
    for witness in made:
        await witness.stop()


async def _old_witness(trio: Trio, node: str, folder: Path) -> ServerProcess:
    """Start a server without JetStream that is a route, as earlier witnesses were."""
    folder.mkdir()
    marker = data_dir.read_marker(trio.folder / node)
    assert marker is not None
    layout = Layout(folder, replace(SETTINGS, node_id=node))
    boot = layout.boot(marker, data_dir.free_port("127.0.0.1"))
    process = ServerProcess("old", find_server().path, folder)
    await process.launch(render(replace(boot, name=f"{node}-old", log_file=folder / "old.log", store=None)))
    return process


async def test_a_small_group_size_has_a_leader_and_a_new_member_corrects_it(
    trio: Trio, olds: list[ServerProcess], tmp_path: Path
) -> None:
    """A restart does not correct it."""
    bus, system = await _three(trio)
    await trio.cut()
    for node in ("a", "b"):
        await trio.start(node)
        olds.append(await _old_witness(trio, node, tmp_path / f"old-{node}"))
    await _until_led(trio, system)
    await trio.start("c")
    await trio.until_group_of(system, 3)
    for witness in olds:
        await witness.stop()
    group = await trio.group(system)
    assert group is not None and (group.size, len(group.members)) == (2, 3), "a route without JetStream lowers the size"
    await trio.cut()
    for node in ("a", "b", "c"):
        await trio.start(node)
    await trio.until_group_of(system, 3)
    group = await trio.group(system)
    assert group is not None and group.size == 2, "a restart keeps it"

    extra = (await trio.start("d", "a", "b", "c")).name
    await trio.until_group_of(system, 4)
    group = await trio.group(system)
    assert group is not None and group.size == 4
    await raft_meta.remove(system, extra)
    await trio.until_group_of(system, 3)
    assert {group.size for name, group in (await trio.groups(system)).items() if name != extra} == {3}
    assert await _count(bus) == MESSAGES
