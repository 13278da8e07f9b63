"""Garbage, records of other versions and hostile ids on every subject and bucket: the node goes on and restarts.

The subjects and keys are read from `mesh/subjects.py`, so that a new one is covered.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh import capacity, coordination, messages, subjects
from mesh.bus.client import Bus
from mesh.client import Mesh
from mesh.messages import encode
from tests.nodes import Cluster, NodeProcess, eventually

#: The values for the parameters of a subject and for its wildcards.
TOKENS = {"number": "7", "urgency": "normal", "kind": "echo", "pool": "any"}
TASK = "z-1"
#: A plain publish to these opens or closes a whole stream, by design.
NOT_PUBLISHED = (subjects.LATER_CLOSED,)


def built(node: str) -> Iterator[str]:
    """The result of every builder of `mesh/subjects.py`, for a task and for the node under test."""
    for name, build in vars(subjects).items():
        if not inspect.isfunction(build) or build.__module__ != subjects.__name__ or name.startswith(("_", "is_")):
            continue
        if inspect.signature(build).return_annotation == "str" and name not in ("host_of", "task_id"):
            for stand_in in (TASK, node):
                given = {name: TOKENS.get(name, stand_in) for name in inspect.signature(build).parameters}
                yield build(**given)


def constants() -> Iterator[str]:
    """Every subject and pattern that `mesh/subjects.py` names."""
    for name, value in vars(subjects).items():
        if name.isupper() and not name.startswith("_"):
            yield from (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()


def concrete(pattern: str) -> str:
    """A subject that matches the pattern."""
    return re.sub(r"\{\{.*?\}\}|[*>]", TASK, pattern)


def core_subjects(node: str) -> set[str]:
    """Every subject to publish to."""
    found = {concrete(subject) for subject in (*built(node), *constants()) if "." in subject and "~" not in subject}
    return found - set(NOT_PUBLISHED)


def kv_subjects(node: str) -> set[str]:
    """Every key of every bucket, as its subject: each name of the module may be a key of each bucket."""
    buckets = [value for name, value in vars(subjects).items() if name.startswith("KV_")]
    names = [concrete(name) for name in (*built(node), *constants()) if "~" not in name and not name.isupper()]
    keys = {*names, TASK, node, f"server.{node}", "any", "p-0123456789", "b-t00.named", f"b-t00.{TASK}"}
    blobs = {f"$O.{store}.M.{key}" for store in (subjects.BLOBS, subjects.BLOBS_KEPT) for key in ("eA==", "x")}
    return {f"$KV.{bucket}.{key}" for bucket in buckets for key in keys} | blobs


def filled(text: str) -> Iterator[dict[str, Any]]:
    """For each wire type: the names of its fields with values of their types, where every text is `text`."""
    for module in (messages, coordination, capacity):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__:
                yield {field.name: _value(str(field.type), text) for field in msgspec.structs.fields(kind)}


def _value(type_: str, text: str) -> Any:
    if "tuple" in type_:
        return [text]
    if "dict" in type_:
        return {text: text}
    if "float" in type_ or "int" in type_:
        return -1
    return text if "str" in type_ else {"id": text, "kind": text}


HOSTILE = ("a b-1", "../x", "*", ">", "a\r\nPUB x 0\r\n\r\n")
OTHERS: tuple[Any, ...] = (None, 7, [], [1, 2], {"version": 99}, {"wire_version": "x"}, {"x": 1})
#: A start reads only the last write of a KV record, so each group has a start of its own.
PAYLOADS: dict[str, list[bytes]] = {
    "garbage": [b"", b"\x00", b"{", b"\xff" * 40, b"[" * 5000, b"\x91" * 5000, b"\xa4\xff\xfe\xfd\xfc", b"\xc1"],
    "other versions": [encode(value) for value in OTHERS],
    "hostile ids": [encode(value) for text in HOSTILE[:2] for value in filled(text)],
    "hostile subjects": [encode({**value, "x": 1}) for text in HOSTILE[2:] for value in filled(text)],
}


def test_the_subjects_of_the_module_are_found() -> None:
    found = core_subjects("n1") | kv_subjects("n1")
    assert {"work.echo", "work.echo.any.normal.z-1", "task.z.1.end", "node.n1.heartbeat", "node.n1.bus"} <= found
    assert {"$KV.mesh.identity", "$KV.mesh.merge", "$KV.mesh.server.z-1", "$KV.lease.leader", "$KV.plan.ranks"} <= found
    assert not [subject for subject in found if set(subject) & set(" *>~")]


async def works(mesh: Mesh, value: int) -> None:
    """Check that a submitted task returns its result."""
    assert (await mesh.submit("echo", {"value": value}, wait_s=40.0))["value"] == value


async def publish_everywhere(bus: Bus, node: NodeProcess, payloads: list[bytes]) -> None:
    """Publish each payload on each subject and key, in batches."""
    targets = sorted(core_subjects(node.id)) + sorted(kv_subjects(node.id))
    for payload in payloads:
        for subject in targets:
            bus.send(subject, payload)
        await bus.flush()


@pytest.mark.parametrize("group", PAYLOADS)
async def test_a_node_works_on_and_starts_again_after(group: str, tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        (node,) = await cluster.start(2)
        mesh = await cluster.client()
        await works(mesh, 1)
        await publish_everywhere(mesh.bus, node, PAYLOADS[group])
        await works(mesh, 2)
        await node.kill9()
        await node.start()
        await works(mesh, 3)
        redelivered = []

        async def settled() -> bool:
            info = await mesh.bus.stream_info(subjects.WORK, subjects.lane_filter("echo", "any", "normal"))
            redelivered[:] = info.subjects
            return not info.subjects

        await eventually(settled, 30.0, lambda: f"never settled: {redelivered}")
        failures = [line for line in node.log(5_000_000).splitlines() if " failed and restarts" in line]
        assert not failures, failures
        assert "handling a message on" not in node.log(5_000_000)
