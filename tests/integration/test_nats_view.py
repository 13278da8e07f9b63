"""docs/nats.md, command by command: nats-py, an independent client, sends the requests that `nats` would send."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import msgspec
import nats
import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError
from nats.js.errors import KeyNotFoundError

from tests.nodes import Cluster, eventually

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "nats.md").read_text()


def translator() -> list[str]:
    """The arguments of $SHOW on the page, with this interpreter in the place of the clone's."""
    (line,) = re.findall(r'^SHOW="(.*)"$', PAGE, re.MULTILINE)
    return [sys.executable, *shlex.split(line)[1:]]


async def last(subscription: Subscription) -> Msg:
    """The first message that is an end."""
    while not (message := await subscription.next_msg(timeout=10)).subject.endswith(".end"):
        assert message.subject.endswith(".state")
    return message


@pytest.fixture
async def mesh(tmp_path: Path):
    """(one node, a plain client of its bus)"""
    async with Cluster(tmp_path) as cluster:
        node = await cluster.node().start()
        client = await nats.connect(cluster.url)
        try:
            yield node, client
        finally:
            await client.close()
        cluster.print_logs()


async def test_ingress_and_task_subjects(mesh) -> None:
    """`nats req work.echo`, `nats sub 'task.>' --translate`, the sequence as an id, a wrong shape refused."""
    node, client = mesh
    seen = await client.subscribe("task.>")
    updates = await client.subscribe("task_updates.>")
    await client.flush()
    headers = {"Queztl-Urgency": "high", "Queztl-Requires": '{"memory_mb": 100}'}
    answer = json.loads((await client.request("work.echo", b'{"value": 7}', headers=headers)).data)
    assert answer["stream"] == "WORK"
    # A state precedes the end when the task took over 100 ms, for example because its worker had to start.
    end, stored = await last(seen), await last(updates)
    assert re.fullmatch(rf"task\.w[0-9a-f]+\.{answer['seq']}\.end", end.subject)
    assert stored.subject == end.subject.replace("task.", "task_updates.", 1) and stored.data == end.data
    run = partial(subprocess.run, translator(), input=end.data, capture_output=True, check=True)
    shown = await asyncio.to_thread(run)
    assert json.loads(shown.stdout)["result"] == {"value": 7}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"{node.api}/api/v1.2/workload/{answer['seq']}/status"
    with await asyncio.to_thread(opener.open, url, None, 10) as status:
        assert json.load(status)["result"] == {"value": 7}
    with pytest.raises(NoRespondersError):
        await client.request("work.echo.now", b"{}")
    lanes = {consumer.name for consumer in await client.jetstream().consumers_info("WORK")}
    assert "ingress" in lanes and any(re.fullmatch(r"echo~p-[0-9a-f]{10}~high", lane) for lane in lanes)


async def test_streams_buckets_journal_and_heartbeats(mesh) -> None:
    """`nats stream ls -a`, `nats kv get`, `nats sub 'node.*.heartbeat'`, `nats stream view EVENTS`."""
    node, client = mesh
    jetstream = client.jetstream()
    streams = {stream.config.name for stream in await jetstream.streams_info()}
    assert streams >= {"WORK", "LATER", "TASKS", "DEAD", "EVENTS", "METRICS", "OBJ_blobs", "OBJ_blobs-kept"}
    listed = re.search(r"\| `nats kv ls`.*\| (`nodes`[^;|]*)", PAGE)
    assert listed is not None
    buckets = set(re.findall(r"`(\w+)`", listed[1]))
    assert {name[3:] for name in streams if name.startswith("KV_")} == buckets
    heartbeats = await client.subscribe("node.*.heartbeat")
    assert (await heartbeats.next_msg(timeout=10)).subject == f"node.{node.id}.heartbeat"
    record = await (await jetstream.key_value("nodes")).get(node.id)
    assert msgspec.msgpack.decode(record.value)["api"] == node.api
    leases = await jetstream.key_value("lease")

    async def elected() -> bool:
        try:
            return bool((await leases.get("leader")).value)
        except KeyNotFoundError:
            return False

    await eventually(elected, 10.0, "a single node did not become leader")
    assert msgspec.msgpack.decode((await leases.get("leader")).value)["node"] == node.id
    subjects = (await jetstream.stream_info("EVENTS", subjects_filter="mesh.event.>")).state.subjects
    assert "mesh.event.join" in subjects


async def test_nodes_answer_as_micro_services(mesh) -> None:
    """`nats micro ls`, `info` and `stats`: the formats of NATS ADR-32."""
    node, client = mesh
    for verb in ("PING", "INFO", "STATS"):
        for tail in ("", ".queztl", f".queztl.{node.id}"):
            answer = json.loads((await client.request(f"$SRV.{verb}{tail}", b"")).data)
            assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
            assert (answer["name"], answer["id"]) == ("queztl", node.id)
            assert re.fullmatch(r"\d+\.\d+\.\d+.*", answer["version"])
    endpoints = json.loads((await client.request("$SRV.INFO.queztl", b"")).data)["endpoints"]
    assert {endpoint["subject"] for endpoint in endpoints} >= {"work.echo", "work.crypto_mining"}


async def test_blobs_are_a_nats_object_store(mesh) -> None:
    """`nats object ls blobs` and `nats object get`: nats-py reads a blob uploaded by REST and checks its digest."""
    node, client = mesh
    data = os.urandom(300_000)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{node.api}/api/v1.2/blobs", data, {"Content-Type": "image/png"})
    with await asyncio.to_thread(opener.open, request, None, 20) as answer:
        blob = json.load(answer)["blob"]
    store = await client.jetstream().object_store("blobs")
    assert [stored_object.name for stored_object in await store.list()] == [blob]
    assert (await store.get(blob)).data == data
