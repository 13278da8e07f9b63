"""A message in a lane that can't be a task becomes a dead letter at once; nothing is delivered again for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh import decoding, subjects
from mesh.bus.wire import Message
from mesh.errors import BadInput
from mesh.messages import BlobRef, Task, encode
from mesh.tasks import dead_letters, records
from mesh.tasks.submitter import Submitter
from node.work.ingress import Ingress
from tests.integration.node_parts import Node, make_node

PLAIN = {"id": "z-1", "kind": "echo", "payload": {}, "submitted_at": 0}
HOSTILE: dict[str, dict[str, Any]] = {
    "an id with a space": {"id": "a b-1"},
    "an id with a line break": {"id": "a\r\nPUB x 0\r\n\r\n-1"},
    "an id with a wildcard": {"id": "*-1"},
    "an id without a number": {"id": "z-one"},
    "the id of another task": {"id": "z-2"},
    "another kind": {"kind": "telepathy"},
    "a kind with a space": {"kind": "e cho"},
    "another pool": {"pool": "node-x y"},
    "another urgency": {"urgency": "now"},
    "requirements that are none": {"requires": {"memory_mb": "lots"}},
    "a negative number of attempts": {"max_attempts": -1},
    "a time that is not a number": {"timeout_s": float("nan")},
    "a blob outside its folder": {"blobs": ["../../../tmp/x"]},
    "a payload in a strange blob": {"payload_ref": ["x y"]},
    "text that is not UTF-8": {"origin": msgspec.Raw(b"\xa2\xff\xfe")},
}


@pytest.fixture
async def node(bus_server, tmp_path: Path) -> Node:
    return await make_node(bus_server, tmp_path)


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_task_is_a_dead_letter_at_once(node: Node, changes) -> None:
    data = encode(PLAIN | changes)
    assert await node.spy.acks() == []
    node.admission.on_message(Message("work.echo.any.normal.z-1", "acks.7.1", data), 7, 1)
    assert await node.ran() == [] and await node.spy.acks(1) == [("acks.7.1", b"+TERM")]
    letter = await dead_letters.show(node.bus, "z-1")
    assert letter.raw == data and letter.end.error.code == "unreadable"
    assert await records.read_end(node.bus, "z-1") == letter.end


async def test_a_message_whose_subject_names_no_task_is_kept_under_its_sequence(node: Node) -> None:
    node.admission.on_message(Message("work.echo.any.normal.z", "acks.7.1", b"\xc1"), 7, 1)
    await node.ran()
    letter = await dead_letters.show(node.bus, "unreadable-7")
    assert letter.raw == b"\xc1" and letter.task.kind == "echo"


async def test_an_unreadable_message_can_be_listed_and_not_submitted_again(node: Node) -> None:
    node.admission.on_message(Message("work.echo.any.normal.z-1", "acks.7.1", b"\xc1"), 7, 1)
    await node.ran()
    assert [letter.task.id for letter in await dead_letters.list_all(node.bus)] == ["z-1"]
    with pytest.raises(BadInput, match="can't be read"):
        await dead_letters.replay(node.bus, Submitter(node.bus, "c9"), "z-1")


@pytest.mark.parametrize("data", [b"\xc1", encode(PLAIN | {"id": "a b-1"}), encode(PLAIN | {"pool": "a b"})])
async def test_a_delayed_message_that_is_no_task_is_a_dead_letter_when_it_is_due(node: Node, data) -> None:
    ingress = Ingress(node.bus, Submitter(node.bus, "c9"), "w0", "me")
    reply = "$JS.ACK.LATER.due.1.7.1.0.0"
    await ingress._move_due(Message(subjects.later_due("z-1"), reply, data))
    assert (await dead_letters.show(node.bus, "z-1")).raw == data


async def test_a_good_task_runs_after_hostile_ones(node: Node) -> None:
    for number, changes in enumerate(HOSTILE.values(), 1):
        node.admission.on_message(
            Message("work.echo.any.normal.z-1", f"acks.{number}.1", encode(PLAIN | changes)), number, 1
        )
    node.get(99)
    assert await node.ran() == ["c1-99"] and node.bus.connected


def test_a_task_of_today_is_read_as_it_was_sent() -> None:
    task = Task(
        id="c0ffee-1", kind="echo", pool="any@eu-west", urgency="high", requires={"cores": "all", "labels": {"a": "b"}},
        payload_ref=BlobRef("b-t00"), blobs=("b-k01",), submitted_at=1.0, expires_s=2.0, timeout_s=3.0,
    )  # fmt: skip
    assert decoding.lane_task("work.echo.any@eu-west.high.c0ffee-1", encode(task)) == task
