"""Well-formed values that nobody would send: far times, huge numbers, a stranger's ids, empty lists, on every subject.

Generated from the wire types and from `mesh/subjects.py`, so that a new type, subject or bucket is covered. One value
has the fields of all types: a reader ignores those of the others, and each record is one that its reader accepts.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from mesh import benchmarks, capacity, coordination, decoding, messages, subjects
from mesh.bus.client import Bus
from mesh.decoding import Decoder, Unreadable
from mesh.messages import encode
from scaling.state import memory, orders, settings
from tests.integration.test_hostile_bus import TASK, core_subjects, kv_subjects, works
from tests.nodes import Cluster, NodeProcess

WIRE = (messages, coordination, capacity, benchmarks, decoding, settings, memory, orders)
#: Fields whose type differs between the wire types; all are optional.
AMBIGUOUS = {"version", "error", "lost"}
#: What a field must be for its value to be accepted at all.
VALID: dict[str, Any] = {
    "id": TASK, "kind": "echo", "pool": "any", "urgency": "normal", "do": "stop", "phase": "moved", "max_attempts": 100,
    "urls": ["nats://127.0.0.1:1"], "client_urls": ["nats://127.0.0.1:1"], "routes": [["127.0.0.1", 1]], "payload": {},
    "stores": True, "servers": 1, "requires": {}, "task": {"id": TASK, "kind": "echo"}, "memory": {},
    "end": {"id": TASK, "kind": "echo", "state": "done"}, "ranks": {}, "capabilities": {}, "payload_ref": None,
}  # fmt: skip
API = "/api/v1.2"
READ = ("/network/status", "/workloads/tasks", f"/workload/{TASK}/status", "/dead", "/autoscaler/status", "/benchmarks")


def types() -> list[type[msgspec.Struct]]:
    """Every wire type."""
    return [
        kind
        for module in WIRE
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__
    ]


def value(text: str, number: int, seconds: float, **fields: Any) -> dict[str, Any]:
    """The fields of all types, each text `text`, each number `number`, each time `seconds`."""
    made: dict[str, Any] = {}
    for kind in types():
        for field in msgspec.structs.fields(kind):
            written = str(field.type)
            if written.startswith("tuple"):
                made[field.name] = []
            elif written.startswith("dict"):
                made[field.name] = {}
            elif field.type is bool:
                made[field.name] = True
            elif field.type is float:
                made[field.name] = seconds
            elif field.type is int:
                made[field.name] = number
            elif field.type is str:
                made[field.name] = text
    return {name: found for name, found in (made | VALID | fields).items() if name not in AMBIGUOUS}


def far(_: str) -> dict[str, Any]:
    """A stranger's, with the largest numbers and the latest times."""
    return value("mstranger", 1 << 62, 1e300, state="done")


def own(node: str) -> dict[str, Any]:
    """In the name of the node itself, which has left, with no amounts at all."""
    return value(node, 0, 0.0, state="left", interval_s=0.0)


def test_every_decoder_accepts_one_of_the_values() -> None:
    refused = []
    for name, decoder in vars(decoding).items():
        if isinstance(decoder, Decoder):
            tried = [
                decoder(pack(made))
                for made in (far("n1"), own("n1"), far("n1") | {"name": "any"})
                for pack in (encode, msgspec.json.encode)
            ]
            tried += [decoder(encode(["text"])), decoder(encode({"text": "text"}))]
            if all(isinstance(found, Unreadable) for found in tried):
                refused.append((name, tried[0]))
    assert not refused


async def publish_everywhere(bus: Bus, node: NodeProcess, made: dict[str, Any]) -> None:
    """Publish on each subject and key, as MessagePack, or as JSON where that is read."""
    packed, text = encode(made), msgspec.json.encode(made)
    for subject in sorted(core_subjects(node.id) | kv_subjects(node.id)):
        is_json = subject.startswith(("$O.", f"$KV.{subjects.KV_BENCH}."))
        bus.send(subject, text if is_json else packed)
    await bus.flush()


async def answers(node: NodeProcess) -> None:
    """Its API says what there is, or that it is not there."""
    async with aiohttp.ClientSession() as session:
        for path in READ:
            async with session.get(f"{node.api}{API}{path}") as answer:
                assert answer.status < 500, (path, answer.status, await answer.text())


@pytest.fixture
async def cluster(tmp_path: Path):
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


@pytest.mark.timeout(300)
async def test_a_node_works_on_and_starts_again_after_well_formed_hostile_values(cluster: Cluster) -> None:
    (node,) = await cluster.start(2)
    mesh = await cluster.client()
    for number, variant in enumerate((far, own)):
        await publish_everywhere(mesh.bus, node, variant(node.id))
        await works(mesh, 2 * number)
        await answers(node)
        await publish_everywhere(mesh.bus, node, variant(node.id))  # the last word of each record at the start
        await node.kill9()
        await node.start()
        await works(mesh, 2 * number + 1)
        await answers(node)
    log = node.log(5_000_000)
    failures = [line for line in log.splitlines() if " failed and " in line or "Traceback" in line]
    assert not failures, failures
    assert "handling a message on" not in log
