"""Waiting for ends: an end wakes every waiter, and a missed one is found by polling."""

from __future__ import annotations

import asyncio

import pytest

from mesh.client import Mesh
from mesh.errors import BusUnavailable, WaitTimeout
from mesh.messages import TaskEnd
from mesh.tasks import records
from mesh.tasks.completions import Completions
from tests.proxy import Proxy


def done(task: str) -> TaskEnd:
    return TaskEnd(id=task, kind="echo", state="done")


@pytest.fixture
async def client(bus_server):
    completions = Completions(await bus_server.connect("client"), "c1")
    await completions.start()
    yield completions
    await completions.stop()


@pytest.fixture
async def node(bus_server):
    return await bus_server.connect("node")


async def test_an_end_wakes_its_submitter(client, node) -> None:
    futures = [client.expect(f"c1-{number}") for number in range(100)]
    called = asyncio.get_running_loop().create_future()
    client.call("c1-100", called.set_result)
    await asyncio.gather(*(records.write_end(node, done(f"c1-{number}")) for number in range(101)))
    async with asyncio.timeout(30):
        ends = await asyncio.gather(*futures, called)
    assert [end.id for end in ends] == [f"c1-{number}" for number in range(101)]
    assert not client._waits and not client._calls


async def test_the_first_end_is_the_one_that_is_delivered(client, node) -> None:
    future = client.expect("c1-1")
    await records.write_end(node, TaskEnd(id="c1-1", kind="echo", state="cancelled"))
    await records.write_end(node, done("c1-1"))
    assert (await future).state == "cancelled"


async def test_a_task_of_another_submitter_can_be_waited_for(client, node) -> None:
    wait = asyncio.create_task(client.wait("other-7", 10))
    await client._bus.flush()
    await records.write_end(node, done("other-7"))
    assert (await wait).id == "other-7"
    assert (await client.wait("other-7", 1)).id == "other-7"  # after the end: it is read
    assert not client._waits and not client._foreign


async def test_several_waiters_of_one_task_do_not_disturb_each_other(client, node) -> None:
    patient = [asyncio.create_task(client.wait("other-7", None)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(WaitTimeout, match="other-7"):
        await client.wait("other-7", 0.05)
    given_up = asyncio.create_task(client.wait("other-7", None))
    await client._bus.flush()
    given_up.cancel()
    await asyncio.wait([given_up])
    await records.write_end(node, done("other-7"))
    async with asyncio.timeout(8):
        assert {(await wait).id for wait in patient} == {"other-7"}
    assert not client._waits and not client._foreign


async def test_waiters_after_the_end_do_not_strand_each_other(client, node) -> None:
    await records.write_end(node, done("other-7"))
    async with asyncio.timeout(8):
        ends = await asyncio.gather(*(client.wait("other-7", None) for _ in range(5)))
    assert len(ends) == 5


async def test_ends_published_while_the_connection_was_lost_are_caught_up(bus_server, client, node) -> None:
    back = asyncio.Event()
    node.on_back.append(back.set)
    futures = [client.expect(f"c1-{number}") for number in range(3)]
    # The client receives nothing for a while, as when its cable is cut; the node does.
    await client._subscription.close()
    for number in range(3):
        await records.write_end(node, done(f"c1-{number}"))
    assert not any(future.done() for future in futures)
    bus_server.kill()
    await bus_server.start()
    async with asyncio.timeout(8):
        assert [(await future).state for future in futures] == ["done"] * 3


async def test_an_end_without_an_update_is_found_by_polling(client, node) -> None:
    future = client.expect("c1-1")
    await client._subscription.close()
    await records.write_end(node, done("c1-1"))
    async with asyncio.timeout(30):
        assert (await future).state == "done"


async def test_stopping_ends_open_waits(bus_server) -> None:
    completions = Completions(await bus_server.connect("client"), "c9")
    await completions.start()
    future = completions.expect("c9-1")
    await completions.stop()
    assert future.cancelled()


async def test_a_client_whose_connect_fails_leaves_no_connection_open(bus_server, eventually, monkeypatch) -> None:
    """`async with` exits only what it has entered, so a failed connect cleans up after itself."""
    proxy = Proxy(int(bus_server.url.rpartition(":")[2]))
    mesh = Mesh(f"nats://127.0.0.1:{await proxy.start()}")

    async def fail(_: Completions) -> None:
        raise BusUnavailable("the bus did not answer")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(Completions, "start", fail)
            with pytest.raises(BusUnavailable):
                await mesh.connect()
        assert proxy.accepted == 1
        await eventually(lambda: not proxy.carried)
        await mesh.connect()
        proxy.mute = True
        proxy.cut()
        await mesh.close()  # the server does not answer: that is no error
        await eventually(lambda: not proxy.carried)
    finally:
        await proxy.close()
