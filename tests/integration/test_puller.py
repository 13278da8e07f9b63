"""Pulls with a real server: which node gets a message, and that idle pulls are cancelled for work elsewhere."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from mesh import subjects
from mesh.bus.streams import GROUP, declare_lane
from mesh.messages import Capabilities, KindInfo, NodeRecord, Task, encode
from node.work import pull_plan
from node.work.pull_plan import Load
from node.work.puller import Puller

ECHO, IMAGES = ("echo", "any", "normal"), ("image_processing", "any", "normal")
LONG_S = 1.0


class Node:
    """A puller whose tasks never end: each delivery takes a slot for ever."""

    def __init__(self, bus, slots: int, rank: int = 0) -> None:
        kinds = tuple(KindInfo(lane[0], True) for lane in (ECHO, IMAGES))
        record = NodeRecord(id="n1", name="n1", incarnation="1", slots=slots, capabilities=Capabilities(kinds=kinds))
        self.slots, self.news = slots, asyncio.Event()
        self.got: list[tuple[str, int]] = []
        """(kind, delivery count)"""
        self.puller = Puller(bus, lambda: record, self.load, lambda _: rank, self.on_message)

    def load(self) -> Load:
        means_s = {lane[0]: LONG_S for lane in (ECHO, IMAGES)}
        return Load(self.slots, max(0, self.slots - len(self.got)), (), means_s)

    def on_message(self, message, stream_seq: int, delivered: int) -> None:
        self.got.append((message.subject.split(".")[1], delivered))
        self.news.set()

    async def until(self, count: int, within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while len(self.got) < count:
                self.news.clear()
                await self.news.wait()


async def put(bus, lane: tuple[str, str, str], count: int) -> None:
    for number in range(count):
        task = Task(id=f"c1-{lane[0][0]}{number}", kind=lane[0], submitted_at=1.0)
        await bus.store(subjects.lane_subject(*lane, task.id), encode(task))


@pytest.fixture
async def lanes(bus_server):
    bus = await bus_server.connect("submitter")
    for lane in (ECHO, IMAGES):
        await declare_lane(bus, *lane)
    return bus


async def test_idle_pulls_keep_no_slot_from_a_lane_that_has_work(bus_server, lanes, eventually) -> None:
    """After a hint, this node requests all it can take from one lane, in vain; then another lane has work."""
    node, other = [await patient_node(bus_server, name) for name in ("n1/1", "n2/1")]
    await node.puller.start()
    try:
        lanes.send(subjects.wake(*IMAGES), b"")
        await eventually(lambda: sum(lane.requested for lane in node.puller._lanes.values()) == 4)
        await put(lanes, ECHO, 4)
        lanes.send(subjects.wake(*ECHO), b"")
        await node.until(4)
        assert node.got == [("echo", 1)] * 4
        # No cancelled pull is left: it would take the messages that come now.
        await other.puller.start()
        await put(lanes, IMAGES, 2)
        lanes.send(subjects.wake(*IMAGES), b"")
        await other.until(2)
        assert other.got == [("image_processing", 1)] * 2 and len(node.got) == 4
    finally:
        await node.puller.stop()
        await other.puller.stop()


async def patient_node(bus_server, name: str) -> Node:
    """A node of 4 slots whose pulls and scans last a minute, so that neither helps the test."""
    bus = await bus_server.connect(name)
    bus.config = replace(bus.config, pull_expires_s=60.0, lane_scan_s=60.0)
    return Node(bus, slots=4)


async def test_a_pull_has_a_batch_an_expiry_and_a_rank(bus_server, lanes, eventually) -> None:
    """At most the free slots, for at most two seconds, with the rank of the plan."""
    asked = []
    await lanes.subscribe("$JS.API.CONSUMER.MSG.NEXT.WORK.*", lambda message: asked.append(json.loads(message.data)))
    node = Node(await bus_server.connect("n1/1"), slots=3, rank=7)
    await node.puller.start()
    try:
        lanes.send(subjects.wake(*ECHO), b"")
        await eventually(lambda: asked)
    finally:
        await node.puller.stop()
    first = asked[0]
    assert (first["batch"], first["group"], first["priority"]) == (3, GROUP, 7)
    assert 0 < first["expires"] <= 2_000_000_000


async def test_hints_of_lanes_that_are_not_there_cost_few_scans(bus_server, lanes) -> None:
    """Each made every node list all lanes: a stranger's hints were multiplied by the number of nodes."""
    node = Node(await bus_server.connect("n1/1"), slots=1)
    scans: list[float] = []
    await node.puller.start()
    await lanes.subscribe(f"$JS.API.CONSUMER.LIST.{subjects.WORK}", lambda _: scans.append(0.0))
    for number in range(300):
        lanes.send(subjects.wake("echo", f"p-{number}", "normal"), b"")
        lanes.send(subjects.wake("echo", f"any@r{number}", "normal"), b"")
    await lanes.flush()
    await asyncio.sleep(pull_plan.HINT_WINDOW_S)  # hints that are too many for it start a scan after it
    assert 1 <= len(scans) <= 6
    assert len(node.puller._lanes) <= 2, "only lanes that there are"
    await node.puller.stop()
