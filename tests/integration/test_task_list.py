"""The list of tasks: every task is in it, whatever its state, page by page, at a cost that does not grow with them."""

from __future__ import annotations

import asyncio
from time import time

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.bus.jetstream import JetStream
from mesh.bus.streams import GROUP, declare_lane
from mesh.client import Mesh
from mesh.errors import BadInput
from mesh.messages import Raw, Task, TaskEnd, TaskError, TaskState, encode
from mesh.tasks import dead_letters, listing
from mesh.tasks.submitter import Submitter
from mesh.views import TaskFilter
from node.work.ingress import Ingress


@pytest.fixture
async def bus(bus_server):
    return await bus_server.connect("lister")


async def put_task(bus: Bus, task: str, kind: str = "echo", urgency: str = "normal") -> None:
    await declare_lane(bus, kind, "any", urgency)
    waiting = Task(id=task, kind=kind, urgency=urgency, payload=Raw(encode({})), submitted_at=time())
    await bus.store(subjects.lane_subject(kind, "any", urgency, task), encode(waiting))


async def put_end(bus: Bus, task: str, state: str = "done", **fields) -> None:
    error = TaskError("boom", "it broke") if state == "failed" else None
    end = TaskEnd(id=task, kind="echo", state=state, submitted_at=time(), error=error, **fields)
    await bus.store(subjects.end(task), encode(end))


async def deliver(bus: Bus, kind: str, count: int, urgency: str = "normal") -> None:
    """Take `count` messages of a lane, and hold them."""
    arrived: asyncio.Queue = asyncio.Queue()
    inbox = bus.new_inbox()
    await bus.subscribe(inbox, arrived.put_nowait)
    durable = subjects.lane_durable(kind, "any", urgency)
    bus.pull(subjects.WORK, durable, inbox, batch=count, expires_s=5, group=GROUP, priority=0)
    for _ in range(count):
        assert (await asyncio.wait_for(arrived.get(), 5)).reply


async def run_on(bus: Bus, task: str, node: str, kind: str = "echo") -> None:
    state = TaskState(id=task, kind=kind, state="running", node=node, started_at=5.0, progress=0.5)
    await bus.store(subjects.state(task), encode(state))


async def listed(bus: Bus, limit: int = 100, nodes: tuple[str, ...] = (), **filters) -> list[str]:
    """The ids on all pages; `filters`: fields of a TaskFilter."""
    found, after = [], ""
    for _ in range(1000):
        page = await listing.page(bus, TaskFilter(**filters), nodes, limit, after)
        assert len(page.tasks) <= limit
        found += [task.id for task in page.tasks]
        after = page.next
        if not after:
            return found
    raise AssertionError("the pages do not end")


async def fill(bus: Bus) -> None:
    """Two at the ingress, one delayed, five in lanes of which two run, four ended."""
    for task in ("c1-1", "c1-2", "c1-3"):
        await put_task(bus, task)
    await deliver(bus, "echo", 2)
    await run_on(bus, "c1-1", "n1")
    await put_task(bus, "c1-4", "crypto_mining", "high")
    await put_task(bus, "c1-5", "crypto_mining", "high")
    await deliver(bus, "crypto_mining", 1, "high")
    await run_on(bus, "c1-4", "n2", "crypto_mining")
    delayed = Task(id="c1-6", kind="echo", payload=Raw(encode({})), submitted_at=time())
    await bus.store(subjects.later_due("c1-6"), encode(delayed))
    for kind in ("echo", "crypto_mining"):
        await bus.store(subjects.ingress(kind), b"{}")
    await put_end(bus, "c1-7", node="n1")
    await put_end(bus, "c1-8", "failed", node="n2")
    await put_end(bus, "c1-9", "cancelled")
    await put_end(bus, "c1-10", node="n2")


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_each_task_is_in_the_list_once_and_each_filter_finds_its_own(bus, limit) -> None:
    await fill(bus)
    ids = await listed(bus, limit)
    assert len(ids) == len(set(ids)) == 12
    assert ids[2:] == [f"c1-{n}" for n in (6, 1, 2, 3, 4, 5, 7, 8, 9, 10)], "ingress, delayed, lanes, ended"
    assert await listed(bus, limit, state="running") == ["c1-1", "c1-4"]
    assert set(await listed(bus, limit, state="queued")) == {*ids[:2], "c1-6", "c1-2", "c1-3", "c1-5"}
    assert await listed(bus, limit, state="failed") == ["c1-8"]
    assert await listed(bus, limit, state="done") == ["c1-7", "c1-10"]
    assert await listed(bus, limit, state="expired") == []
    assert await listed(bus, limit, kind="crypto_mining") == [ids[1], "c1-4", "c1-5"]
    assert await listed(bus, limit, kind="crypto_mining", state="running") == ["c1-4"]
    assert await listed(bus, limit, nodes=("n2",), node="n2") == ["c1-4", "c1-8", "c1-10"]
    assert await listed(bus, limit, nodes=("n2",), node="n2", state="queued") == []
    assert await listed(bus, limit, min_age_s=50) == []


async def test_a_task_that_has_ended_and_lies_in_its_lane_still_is_listed_once(bus) -> None:
    await put_task(bus, "c1-1")
    await put_end(bus, "c1-1", "cancelled")
    assert await listed(bus) == ["c1-1"] and await listed(bus, state="queued") == []


async def test_what_is_no_task_and_what_says_nothing_are_passed_over(bus) -> None:
    await put_task(bus, "c1-1")
    await bus.store("work.echo.any.normal.c1-2", b"\xc1")
    await bus.store(subjects.later_due("c1-3"), b"\xc1")
    await bus.store(subjects.state("c1-1"), b"\xc1")
    await bus.store(subjects.end("c1-4"), b"\xc1")
    assert await listed(bus) == ["c1-1", "c1-4"]
    assert await listed(bus, state="failed") == ["c1-4"], "a final record that can't be read stands like any other"


async def test_a_page_examines_no_more_records_however_few_of_them_match(bus, monkeypatch) -> None:
    """One failed task behind 5,000: each page reads 2,000 records, and the list still ends at it."""
    for first in range(0, 5000, 250):  # not all at once: each has its own limit for the answer of a busy server
        await asyncio.gather(*(put_end(bus, f"c1-{n}") for n in range(first, first + 250)))
    await put_end(bus, "c1-5000", "failed")
    read = []
    page_of = listing.read_page

    async def counting(*arguments):
        messages, more = await page_of(*arguments)
        read.append(len(messages))
        return messages, more

    monkeypatch.setattr(listing, "read_page", counting)
    page = await listing.page(bus, TaskFilter(state="failed"), (), 100, "")
    assert (page.tasks, page.next) == ((), "e2000") and sum(read) <= listing.EXAMINED + 1
    assert await listed(bus, state="failed") == ["c1-5000"]


async def test_a_page_reads_no_more_bytes_than_it_may(bus, monkeypatch) -> None:
    for n in range(8):
        await put_end(bus, f"c1-{n}", result=Raw(encode("x" * 100_000)))
    monkeypatch.setattr(listing, "EXAMINED_BYTES", 250_000)
    page = await listing.page(bus, TaskFilter(), (), 100, "")
    assert 2 <= len(page.tasks) <= 4 and page.next
    assert len(await listed(bus)) == 8


async def test_a_cursor_goes_on_where_its_page_ended_whatever_came_since(bus) -> None:
    for n in range(6):
        await put_task(bus, f"c1-{n}")
    first = await listing.page(bus, TaskFilter(), (), 3, "")
    await put_task(bus, "c1-6")
    await bus.purge(subjects.WORK, subjects.any_lane_of("c1-0"))
    rest = await listing.page(bus, TaskFilter(), (), 100, first.next)
    assert [task.id for task in rest.tasks] == ["c1-3", "c1-4", "c1-5", "c1-6"]
    assert await listing.page(bus, TaskFilter(), (), 3, first.next) != first


@pytest.mark.parametrize(
    ("fields", "limit", "after", "named"),
    [
        ({"state": "stuck"}, 1, "", "state"),
        ({"kind": "e.>"}, 1, "", "kind"),
        ({"min_age_s": -1.0}, 1, "", "min_age"),
        ({"min_age_s": float("nan")}, 1, "", "min_age"),
        ({}, 0, "", "limit"),
        ({}, listing.MAX_LIMIT + 1, "", "limit"),
        ({}, 1, "x", "after"),
        ({}, 1, "q" + "9" * 20, "after"),
        ({"state": "done"}, 1, "q1", "after"),
    ],
)
def test_a_query_that_is_not_valid_is_refused_by_name(fields, limit, after, named) -> None:
    with pytest.raises(BadInput) as caught:
        listing.start(TaskFilter(**fields), limit, after)
    assert [fault.field for fault in caught.value.faults] == [named]


async def test_the_client_lists_over_all_pages_and_finds_a_node_by_its_name(bus, bus_server) -> None:
    await fill(bus)
    async with Mesh(bus=bus) as mesh:
        assert len([task async for task in mesh.tasks()]) == 12
        running = [task async for task in mesh.tasks(state="running", kind="ECHO")]
        assert [(task.id, task.node, task.progress) for task in running] == [("c1-1", "n1", 0.5)]
        assert [task.id async for task in mesh.tasks(node="nobody")] == []


async def test_dead_letters_come_in_pages(bus: JetStream, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        task = Task(id=f"c1-{n}", kind="echo" if n % 2 else "crypto_mining")
        await dead_letters.bury(bus, task, TaskEnd(id=task.id, kind=task.kind, state="failed"))
    ids, after = [], ""
    for _ in range(10):
        page = await dead_letters.page(bus, "", 3, after)
        ids.append([letter.task.id for letter in page.letters])
        after = page.next
        if not after:
            break
    assert ids == [["c1-0", "c1-1", "c1-2"], ["c1-3", "c1-4", "c1-5"], ["c1-6"]]
    assert [letter.task.id for letter in await dead_letters.list_all(bus, "ECHO")] == ["c1-1", "c1-3", "c1-5"]
    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "MAX_LIMIT", 2)  # all of them are more than one page
        assert [letter.task.id for letter in await dead_letters.list_all(bus)] == [f"c1-{n}" for n in range(7)]
    with pytest.raises(BadInput) as caught:
        await dead_letters.page(bus, "e.>", 0, "x")
    assert [fault.field for fault in caught.value.faults] == ["kind", "limit", "after"]


async def test_the_age_of_a_task_is_judged_by_the_clock_of_the_bus(bus) -> None:
    """The submitter's clock, which `submitted_at` shows, is a day off."""
    task = Task(id="c1-1", kind="echo", payload=Raw(encode({})), submitted_at=time() - 86_400)
    await bus.store(subjects.lane_subject("echo", "any", "normal", "c1-1"), encode(task))
    await put_end(bus, "c1-2")
    stored = await bus.read_last(subjects.TASKS, subjects.end("c1-2"))
    while await bus.clock(subjects.WORK).earliest() < stored.stored_at + 0.3:
        await asyncio.sleep(0.05)
    await put_end(bus, "c1-3")
    assert await listed(bus, min_age_s=0.2) == ["c1-1", "c1-2"]
    assert await listed(bus, min_age_s=600) == []


async def test_what_a_plain_client_published_wrongly_is_found_without_its_sequence(bus, bus_server, caplog) -> None:
    """`nats pub` tells its user no sequence; the message left no trace but a record under it."""
    ingress = asyncio.create_task(Ingress(bus, Submitter(bus, "c2"), "e1", "n1").run())
    try:
        await bus.store(subjects.ingress("echo"), b'{"value": ')
        async with asyncio.timeout(10):
            while not (found := await listed(bus, state="failed")):
                await asyncio.sleep(0.02)
    finally:
        ingress.cancel()
    page = await listing.page(bus, TaskFilter(state="failed"), (), 10, "")
    assert found == ["e1-1"] and "is not valid JSON" in page.tasks[0].error["message"]
    assert any("work.echo" in record.message and "e1-1" in record.message for record in caplog.records)
