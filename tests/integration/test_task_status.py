"""Status: a task is found and described wherever it is; an unknown id is not found."""

from __future__ import annotations

import asyncio
import base64

import pytest

from mesh import subjects
from mesh.coordination import MeshRecord
from mesh.errors import NotFound
from mesh.membership.mesh_record import create_mesh_record
from mesh.messages import (
    WIRE_VERSION,
    BlobRef,
    Capabilities,
    KindInfo,
    NodeRecord,
    Raw,
    Task,
    TaskEnd,
    TaskError,
    TaskState,
    encode,
)
from mesh.tasks import records, status
from mesh.tasks.submitter import Submitter
from mesh.views import SubmitRequest
from node.work.ingress import Ingress


@pytest.fixture
async def bus(bus_server):
    return await bus_server.connect("viewer")


async def put_state(bus, **fields) -> None:
    state = TaskState(id="c1-1", kind="echo", **fields)
    await bus.store(subjects.state("c1-1"), encode(state))


async def put_waiting(bus, requires: dict | None = None) -> None:
    task = Task(id="c1-1", kind="echo", submitted_at=5.0, requires=requires or {})
    await bus.store(subjects.lane_subject("echo", "any", "normal", "c1-1"), encode(task))


async def put_node(bus, **fields) -> None:
    record = NodeRecord(
        id="n1", name="n1", incarnation="1", slots=2,
        capabilities=Capabilities(kinds=(KindInfo("echo", True),)), **fields,
    )  # fmt: skip
    await bus.kv(subjects.KV_NODES).put("n1", encode(record))


@pytest.mark.parametrize(
    "task", ["", "x", "c1-1", "no such id", "c1-²", "²", "17", "9" * 19, "9" * 5000, "*-1", ">", "c1.*-1"]
)
async def test_what_never_was_is_nothing(bus, task) -> None:
    with pytest.raises(NotFound):
        await status.status(bus, task)


async def test_a_waiting_task_says_why_it_waits(bus) -> None:
    await put_waiting(bus, {"memory_mb": 1 << 20})
    view = await status.status(bus, "c1-1")
    assert (view.state, view.kind, view.submitted_at) == ("queued", "echo", 5.0)
    assert view.waiting_for
    await put_node(bus)
    view = await status.status(bus, "c1-1")
    assert any("memory" in reason for reason in view.waiting_for)


async def test_a_running_task_says_where_and_how_far(bus) -> None:
    await put_waiting(bus)
    await put_state(bus, state="running", node="n1", attempt=2, progress=0.25, note="half of half", started_at=7.0)
    view = await status.status(bus, "c1-1")
    assert (view.state, view.node, view.attempt, view.progress) == ("running", "n1", 2, 0.25)
    assert (view.note, view.started_at) == ("half of half", 7.0)


async def test_a_task_that_failed_and_waits_says_why_it_failed(bus) -> None:
    await put_waiting(bus)
    await put_state(bus, state="queued", attempt=2, error=TaskError("crashed", "its worker died"))
    view = await status.status(bus, "c1-1")
    assert (view.state, view.attempt, view.error["code"]) == ("queued", 2, "crashed")


async def test_an_ended_task_shows_its_result(bus) -> None:
    await put_waiting(bus)
    await put_state(bus, state="running")
    end = TaskEnd(id="c1-1", kind="echo", state="done", node="n1", result=Raw(encode({"value": 3})), ended_at=9.0)
    await records.write_end(bus, end)
    view = await status.status(bus, "c1-1")
    assert (view.state, view.result, view.node, view.progress) == ("done", {"value": 3}, "n1", 1.0)


async def test_bytes_and_blobs_are_named_not_shown(bus) -> None:
    end = TaskEnd(
        id="c1-1", kind="echo", state="done", result=Raw(encode(b"\x89PNG")), content_type="image/png",
        info={"width": 3},
    )  # fmt: skip
    await records.write_end(bus, end)
    view = await status.status(bus, "c1-1")
    assert (view.result, view.content_type, view.info) == (None, "image/png", {"width": 3})
    reference = BlobRef("b-t1", 7)
    await records.write_end(bus, TaskEnd(id="c1-2", kind="echo", state="done", result_ref=reference))
    assert (await status.status(bus, "c1-2")).result_ref == reference


async def test_a_failed_task_names_each_fault(bus) -> None:
    error = TaskError("bad_input", "is wrong", (("payload.a", "is missing"),))
    await records.write_end(bus, TaskEnd(id="c1-1", kind="echo", state="failed", error=error))
    view = await status.status(bus, "c1-1")
    assert view.error == {
        "code": "bad_input", "message": "is wrong", "faults": [{"field": "payload.a", "problem": "is missing"}],
    }  # fmt: skip


async def test_a_delayed_task_waits_for_its_time(bus) -> None:
    accepted = await Submitter(bus, "c1").accept(SubmitRequest("echo", {}, delay_s=60))
    view = await status.status(bus, accepted.id)
    assert (view.state, view.note) == ("queued", "waits for its time")


@pytest.fixture
async def ingress(bus_server, bus):
    """The ingress of a node, running; the epoch of the mesh is w1."""
    await create_mesh_record(bus, MeshRecord(id="m1", name="m", founder="n1", epoch="w1", wire_version=WIRE_VERSION))
    theirs = await bus_server.connect("n1/1")
    running = asyncio.create_task(Ingress(theirs, Submitter(theirs, "n1"), "w1", "n1").run())
    yield running
    running.cancel()
    await asyncio.wait([running])


async def test_a_message_at_the_ingress_is_known_by_its_sequence(bus) -> None:
    sequence = await bus.store(subjects.ingress("echo"), b'{"value": 1}')
    view = await status.status(bus, str(sequence))
    assert (view.id, view.state, view.note) == (f"w0-{sequence}", "queued", "at the ingress")


async def test_a_plain_publish_goes_through_the_ingress_into_its_lane(bus, ingress, eventually) -> None:
    sequence = await bus.store(subjects.ingress("echo"), b'{"value": 1}', headers={"Queztl-Urgency": "high"})
    async with asyncio.timeout(10):
        while (await status.status(bus, str(sequence))).note:
            await asyncio.sleep(0.02)
    view = await status.status(bus, str(sequence))
    assert (view.id, view.state) == (f"w1-{sequence}", "queued")
    task = await records.read_waiting(bus, view.id)
    assert task.urgency == "high" and bytes(task.payload) == encode({"value": 1})
    lane = subjects.lane_subject("echo", "any", "high", view.id)
    message = await bus.api(f"STREAM.MSG.GET.{subjects.WORK}", {"last_by_subj": lane})
    assert base64.b64decode(message["message"]["data"])


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("no_such_kind", b"{}", "unknown_kind"),
        ("echo", b"{", "bad_input"),
        ("echo", b'{"wrong": 1, "sleep_s": -1}', "bad_input"),
        ("echo", b"[" * 100_000, "bad_input"),
        ("echo", b'{"data": {"blob": "b-tnothere"}}', "not_found"),
        ("echo", b"\xc1", "bad_input"),
    ],
)
async def test_an_invalid_message_at_the_ingress_ends_as_failed(bus, ingress, kind, data, code) -> None:
    sequence = await bus.store(subjects.ingress(kind), data)
    views = [view async for view in status.watch(bus, str(sequence))]
    assert (views[-1].state, views[-1].error["code"]) == ("failed", code)
    good = await bus.store(subjects.ingress("echo"), b"{}")  # and the ingress still works
    async with asyncio.timeout(10):
        while (await status.status(bus, str(good))).note:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("known", [True, False])
async def test_a_message_that_the_ingress_takes_between_two_reads_is_not_lost(
    bus, bus_server, monkeypatch, known
) -> None:
    """The records are read first: the ingress takes the message before the second read, of the message itself."""
    sequence = await bus.store(subjects.ingress("echo"), b"{}")
    ingress, ask, taken = await bus_server.connect("n1/1"), bus.api, []

    async def api(endpoint: str, body: dict | None = None, **options):
        if "seq" in (body or {}) and not taken:
            taken.append(endpoint)
            if known:
                await records.write_end(ingress, TaskEnd(id=f"w0-{sequence}", kind="echo", state="failed"))
            await ingress.api(f"STREAM.MSG.DELETE.{subjects.WORK}", {"seq": sequence})
        return await ask(endpoint, body, **options)

    monkeypatch.setattr(bus, "api", api)
    if known:
        assert (await status.status(bus, str(sequence))).state == "failed"
    else:
        with pytest.raises(NotFound, match=f"no task {sequence};"):
            await status.status(bus, str(sequence))
    assert taken


async def test_a_task_that_moves_on_between_two_reads_is_not_lost(bus, bus_server, monkeypatch) -> None:
    """It is due just after its lane was read, and ends just after its end was read."""
    await Submitter(bus, "c1").accept(SubmitRequest("echo", {}, delay_s=60))
    node, read_delayed, read_waiting = await bus_server.connect("n1/1"), records.read_delayed, records.read_waiting
    looks = 0

    async def overtaken(bus, task: str) -> Task | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            found = await read_waiting(bus, task)
            await put_waiting(node)
            await node.api(f"STREAM.PURGE.{subjects.LATER}", {})
            return found
        await records.write_end(node, TaskEnd(id="c1-1", kind="echo", state="done"))
        await records.remove_waiting(node, "c1-1")
        return await read_waiting(bus, task)

    monkeypatch.setattr(records, "read_waiting", overtaken)
    assert (await status.status(bus, "c1-1")).state == "done" and looks == 2
    assert await read_delayed(bus, "c1-1") is None


async def test_delayed_work_that_is_due_goes_into_its_lane(bus, ingress) -> None:
    accepted = await Submitter(bus, "c1").accept(SubmitRequest("echo", {"value": 2}, delay_s=1.0, urgency="low"))
    async with asyncio.timeout(10):
        while (task := await records.read_waiting(bus, accepted.id)) is None:
            await asyncio.sleep(0.05)
    assert task.urgency == "low"
    async with asyncio.timeout(10):
        while await records.read_delayed(bus, accepted.id) is not None:
            await asyncio.sleep(0.02)


async def test_a_watch_shows_each_change_until_the_end(bus) -> None:
    await put_waiting(bus)
    seen = []
    async for view in status.watch(bus, "c1-1"):
        seen.append(view.state)
        if len(seen) == 1:
            await put_state(bus, state="running", node="n1")
        elif len(seen) == 2:
            await records.write_end(bus, TaskEnd(id="c1-1", kind="echo", state="done"))
    assert seen == ["queued", "running", "done"]
    with pytest.raises(NotFound):
        await anext(status.watch(bus, "c1-9"))
