"""A merge of one mesh into another, on two real bus servers: complete and once, also when the mover dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.bus.kv import Kv
from mesh.bus.streams import declare_streams, list_lanes
from mesh.config import LOCAL
from mesh.coordination import MergeOrder, MeshRecord
from mesh.discovery.announcement import MEMBER, Announcement
from mesh.errors import BusUnavailable, QueztlError
from mesh.merge import detector, mover
from mesh.merge.detector import DuplicateMeshDetector
from mesh.merge.mover import LeadershipLost, Mover
from mesh.merge.order import CLOSED, give_order, read_order, withdraw
from mesh.messages import WIRE_VERSION, Raw, Task, TaskEnd, TaskError, TaskState, encode
from mesh.tasks import dead_letters, records
from mesh.tasks.submitter import Submitter
from mesh.views import SubmitRequest
from tests.integration.conftest import BusServer

LARGE = bytes(range(256)) * 4096


@pytest.fixture
async def other_server(tmp_path: Path) -> AsyncIterator[BusServer]:
    """The bus of another mesh."""
    folder = tmp_path / "other"
    folder.mkdir()
    server = BusServer(folder)
    await server.start()
    try:
        await declare_streams(await server.connect("declare"), LOCAL, free_bytes=4 << 30)
        yield server
    finally:
        await server.close()


async def name_it(bus: Bus, mesh: str) -> None:
    record = MeshRecord(id=mesh, name="queztl", founder="n1", epoch="w1", wire_version=WIRE_VERSION)
    await bus.kv(subjects.KV_MESH).put(subjects.MESH_KEY, encode(record))


async def fill(bus: Bus) -> dict[str, str]:
    """Fill a mesh with tasks, records and blobs; returns name -> id."""
    await name_it(bus, "ma")
    submitter = Submitter(bus, "c1")
    has: dict[str, str] = {}
    for name, request in {
        "waiting": SubmitRequest("echo", {"value": 1}),
        "demanding": SubmitRequest("echo", {"value": 2}, requires={"labels": {"disk": "nvme"}}, urgency="high"),
        "delayed": SubmitRequest("echo", {"value": 3}, delay_s=3600),
        "keyed": SubmitRequest("echo", {"value": 4}, idempotency_key="k"),
        "large": SubmitRequest("echo", {"value": LARGE.hex()}),
        "ended": SubmitRequest("echo", {"value": 5}),
        "tried": SubmitRequest("echo", {"value": 6}),
    }.items():
        has[name] = (await submitter.accept(request)).id
    await bus.store(subjects.WORK_SUBJECTS[0].replace("*", "echo"), b'{"value": 7}')
    await records.write_end(bus, TaskEnd(id=has["ended"], kind="echo", state="done", result=Raw(encode(5))))
    state = TaskState(id=has["tried"], kind="echo", state="queued", attempt=2)
    await bus.store(subjects.state(has["tried"]), encode(state), ttl_s=600)
    failed = TaskEnd(id="c1-99", kind="echo", state="failed", error=TaskError("crashed", "twice"))
    await dead_letters.bury(bus, Task(id="c1-99", kind="echo"), failed)
    has["kept"] = (await bus.objects.put(LARGE, "image/png", keep=True)).blob
    return has


async def check(target: Bus, has: dict[str, str]) -> None:
    """Check that the target has everything once."""
    for name in ("waiting", "demanding", "keyed", "large", "tried"):
        assert (await records.read_waiting(target, has[name])).id == has[name], name
    assert await records.read_waiting(target, has["ended"]) is None, "an ended task does not run again"
    assert (await records.read_end(target, has["ended"])).state == "done"
    assert (await records.read_state(target, has["tried"])).attempt == 2
    assert (await records.read_delayed(target, has["delayed"])).id == has["delayed"]
    assert [letter.task.id for letter in await dead_letters.list_all(target)] == ["c1-99"]
    large = (await records.read_waiting(target, has["large"])).payload_ref
    assert sum([len(chunk) async for chunk in await target.objects.open(large.blob)]) == large.size
    assert b"".join([chunk async for chunk in await target.objects.open(has["kept"])]) == LARGE
    counts = {
        name: (await target.api(f"STREAM.INFO.{name}"))["state"]["messages"] for name in (subjects.WORK, subjects.LATER)
    }
    assert counts == {subjects.WORK: 6, subjects.LATER: 1}, "five tasks and the message at the ingress"
    again = Submitter(target, "c2")
    accepted = await again.accept(SubmitRequest("echo", {"value": 4}, idempotency_key="k"))
    assert accepted.duplicate and accepted.id == has["keyed"]


async def test_everything_is_moved_and_nothing_is_left(bus_server, other_server, monkeypatch) -> None:
    monkeypatch.setattr(mover, "DRAIN_WITHIN_S", 0.0)
    source, target = await bus_server.connect("source"), await other_server.connect("target")
    has = await fill(source)
    await give_order(source, "ma", target, MergeOrder(into="mb", urls=(other_server.url,), token="o1"))
    await Mover(source, target, _yes, _nothing).run()
    await check(target, has)
    for stream in (subjects.WORK, subjects.LATER):
        assert (await source.api(f"STREAM.INFO.{stream}"))["state"]["messages"] == 0
    with pytest.raises(QueztlError):  # a delayed task accepted now would be lost with the servers of the source
        await source.store(subjects.later_at("c9-1"), b"late", timeout_s=1.0)
    order = await read_order(source)
    assert order.phase == "moved" and order.moved["tasks"] == 5 and order.moved["blobs"] == 2, order
    lanes = set(await list_lanes(target))
    assert ("echo", "any", "normal") in lanes and len(lanes) == 2
    assert [entry.key for entry in await target.kv(subjects.KV_POOLS).entries()] != []


@pytest.mark.parametrize("stores", [1, 2, 9, 11, 13, 15, 16, 18, 20, 22, 24])
async def test_a_mover_that_dies_is_replaced_by_another(bus_server, other_server, monkeypatch, stores: int) -> None:
    """After any of its writes, confirmed or not."""
    monkeypatch.setattr(mover, "DRAIN_WITHIN_S", 0.0)
    source, target = await bus_server.connect("source"), await other_server.connect("target")
    has = await fill(source)
    await give_order(source, "ma", target, MergeOrder(into="mb", urls=(other_server.url,), token="o1"))
    real, left = target.store, stores

    async def store(*arguments, **options) -> int:
        nonlocal left
        left -= 1
        answer = await real(*arguments, **options)
        if left <= 0:
            raise BusUnavailable("the mover dies here")
        return answer

    monkeypatch.setattr(target, "store", store)
    with pytest.raises(BusUnavailable, match="dies here"):
        await Mover(source, target, _yes, _nothing).run()
    monkeypatch.setattr(target, "store", real)
    await Mover(source, target, _yes, _nothing).run()
    await check(target, has)


async def test_a_leader_that_was_overtaken_moves_nothing_more(bus_server, other_server, monkeypatch) -> None:
    monkeypatch.setattr(mover, "DRAIN_WITHIN_S", 0.0)
    source, target = await bus_server.connect("source"), await other_server.connect("target")
    await fill(source)
    await give_order(source, "ma", target, MergeOrder(into="mb", urls=(other_server.url,), token="o1"))

    async def no() -> bool:
        return False

    with pytest.raises(LeadershipLost):
        await Mover(source, target, no, _nothing).run()
    assert (await read_order(source)).phase == "drain"
    assert (await target.api(f"STREAM.INFO.{subjects.WORK}"))["state"]["messages"] == 0


class PermanentLeader:
    """Leader for ever, with fence 1."""

    async def confirm(self) -> int:
        return 1


async def test_an_empty_new_mesh_merges_automatically_into_one_in_use(bus_server, other_server, eventually) -> None:
    """The leaders of both meshes run detectors; only that of the mesh that moves acts."""
    ours, theirs = await bus_server.connect("a"), await other_server.connect("b")
    await name_it(ours, "ma")
    await name_it(theirs, "mb")
    await fill(ours)

    async def connect(urls: tuple[str, ...]) -> Bus:
        return await Bus.connect(urls, name="detector", config=LOCAL)

    def announced_by(mesh: str, url: str) -> tuple[Announcement, ...]:
        return (Announcement("queztl", mesh, "", "n9", (url,), MEMBER),)

    detectors = [
        DuplicateMeshDetector(
            ours, "n1", PermanentLeader(), lambda: announced_by("mb", other_server.url), connect, tuple
        ),
        DuplicateMeshDetector(
            theirs, "n2", PermanentLeader(), lambda: announced_by("ma", bus_server.url), connect, tuple
        ),
    ]
    running = [asyncio.create_task(duplicates.run(1)) for duplicates in detectors]
    order: MergeOrder | None = None
    try:
        async with asyncio.timeout(40):
            while order is None or order.phase != "moved":
                # A hint of a change may arrive before the change itself can be read.
                await asyncio.sleep(0.05)
                order = await read_order(theirs)
        assert order.into == "ma" and await read_order(ours) is None
        assert detectors[0].alarms == {}
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_two_meshes_in_use_raise_an_alarm_and_are_left_alone(
    bus_server, other_server, eventually, monkeypatch
) -> None:
    monkeypatch.setattr(detector, "VISIBLE_FOR_S", 0.0)
    ours, theirs = await bus_server.connect("a"), await other_server.connect("b")
    for bus, mesh in ((ours, "ma"), (theirs, "mb")):
        await name_it(bus, mesh)
        await Submitter(bus, f"c{mesh}").accept(SubmitRequest("echo", {}))

    async def connect(urls: tuple[str, ...]) -> Bus:
        return await Bus.connect(urls, name="detector", config=LOCAL)

    seen = (Announcement("queztl", "mb", "", "n9", (other_server.url,), MEMBER),)
    duplicates = DuplicateMeshDetector(ours, "n1", PermanentLeader(), lambda: seen, connect, tuple)
    running = asyncio.create_task(duplicates.run(1))
    try:
        await eventually(lambda: duplicates.alarms, within_s=15)
        assert "queztl bus merge" in duplicates.alarms["mb"] and "1 unfinished task" in duplicates.alarms["mb"]
        assert await read_order(ours) is None and await read_order(theirs) is None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _yes() -> bool:
    return True


async def _nothing(moved: dict[str, int]) -> None:
    """Ignore the progress."""


async def test_a_withdrawal_that_is_cut_short_leaves_no_mesh_closed(bus_server, monkeypatch) -> None:
    """The order was removed first: a leader that ended at that moment left a queue that took nothing any more."""
    bus = await bus_server.connect("leader")
    limit = (await bus.stream_info(subjects.WORK)).config["max_bytes"]
    order = MergeOrder(into="mb", urls=("nats://127.0.0.1:1",), token="o1", work_max_bytes=limit)
    await bus.kv(subjects.KV_MESH).put(subjects.MERGE_KEY, encode(order))
    await bus.update_stream(subjects.WORK, max_bytes=CLOSED)
    await bus.update_stream(subjects.LATER, subjects=[subjects.LATER_CLOSED])
    delete = Kv.delete

    async def ends_after(self: Kv, key: str, last: int | None = None) -> None:
        await delete(self, key, last)
        raise BusUnavailable("the leader ends")

    monkeypatch.setattr(Kv, "delete", ends_after)
    with pytest.raises(BusUnavailable, match="ends"):
        await withdraw(bus)
    assert await read_order(bus) is None
    assert (await bus.stream_info(subjects.WORK)).config["max_bytes"] == limit
    assert (await bus.stream_info(subjects.LATER)).config["subjects"] == list(subjects.LATER_SUBJECTS)


async def test_a_merge_whose_target_is_gone_is_undone_and_the_mesh_takes_work_again(
    bus_server, other_server, eventually, monkeypatch
) -> None:
    """It was closed for new work when the target was gone, and stayed closed."""
    monkeypatch.setattr(mover, "DRAIN_WITHIN_S", 0.0)
    monkeypatch.setattr(detector, "UNDO_AFTER_S", 0.5)
    monkeypatch.setattr(detector, "LOOK_EVERY_S", 0.2)
    source, target = await bus_server.connect("source"), await other_server.connect("target")
    await name_it(target, "mb")
    has = await fill(source)
    before = (await source.stream_info(subjects.WORK)).config["max_bytes"]
    await give_order(source, "ma", target, MergeOrder(into="mb", urls=(other_server.url,), token="o1"))

    async def store(*_, **__) -> int:
        raise BusUnavailable("the target is gone")

    monkeypatch.setattr(target, "store", store)
    with pytest.raises(BusUnavailable, match="gone"):
        await Mover(source, target, _yes, _nothing).run()
    assert (await source.stream_info(subjects.WORK)).config["max_bytes"] == 1
    other_server.kill()

    async def connect(urls: tuple[str, ...]) -> Bus:
        return await Bus.connect(urls, name="detector", config=LOCAL)

    duplicates = DuplicateMeshDetector(source, "n1", PermanentLeader(), tuple, connect, tuple)
    running = asyncio.create_task(duplicates.run(1))
    try:
        async with asyncio.timeout(30):
            while await read_order(source) is not None:
                await asyncio.sleep(0.05)
            while (await source.stream_info(subjects.LATER)).config["subjects"] != list(subjects.LATER_SUBJECTS):
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (await source.stream_info(subjects.WORK)).config["max_bytes"] == before
    accepted = await Submitter(source, "c7").accept(SubmitRequest("echo", {}))
    assert await records.read_waiting(source, accepted.id) is not None
    assert (await records.read_waiting(source, has["waiting"])).id == has["waiting"]
