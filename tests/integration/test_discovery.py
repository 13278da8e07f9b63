"""Real mDNS between several participants of this process, on 127.0.0.1 only."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace

import pytest

from mesh.config import LOCAL
from mesh.discovery.announcement import CANDIDATE, MEMBER, Announcement
from mesh.discovery.founding import Create, Join, LocalNode
from mesh.discovery.join import find_mesh, first_reachable
from mesh.discovery.mdns import Discovery

LOOPBACK = ("127.0.0.1",)
WITHIN_S = 8.0


@pytest.fixture
def mesh_name() -> str:
    """A unique name, so that the test and other meshes on this machine do not disturb each other."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def listeners():
    made: list[Discovery] = []

    async def make(clock=time.monotonic) -> Discovery:
        discovery = Discovery(LOOPBACK, clock=clock)
        made.append(discovery)
        await discovery.start()
        assert not discovery.trouble
        return discovery

    yield make
    await asyncio.gather(*(discovery.stop() for discovery in made))


async def until(discovery: Discovery, condition) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await discovery.changed(WITHIN_S)


def of_mesh(discovery: Discovery, mesh_name: str) -> dict[str, Announcement]:
    return {
        announcement.node_id: announcement for announcement in discovery.peers() if announcement.mesh_name == mesh_name
    }


async def test_announcement_update_and_goodbye_are_received(listeners, mesh_name):
    first, second = await listeners(), await listeners()
    announced = Announcement(
        mesh_name, "id-1", "", f"{mesh_name}-1", ("nats://127.0.0.1:4222",), MEMBER, "http://127.0.0.1:8000", "0.1"
    )
    await first.announce(announced)
    await until(second, lambda: of_mesh(second, mesh_name))
    assert replace(of_mesh(second, mesh_name)[announced.node_id], at=0.0) == announced
    assert not of_mesh(first, mesh_name), "a node is not its own peer"

    urls = tuple(f"nats://127.0.0.{n}:42222" for n in range(1, 17))
    await first.update(replace(announced, urls=urls))
    await until(second, lambda: of_mesh(second, mesh_name)[announced.node_id].urls == urls)

    late = await listeners()
    await until(late, lambda: of_mesh(late, mesh_name))
    await until(late, lambda: of_mesh(late, mesh_name)[announced.node_id].urls == urls)

    await first.stop()
    await until(second, lambda: not of_mesh(second, mesh_name))


async def test_a_newcomer_is_answered_however_soon_after_the_last_announcement(listeners, mesh_name):
    # The timers of uvloop may fire a millisecond early: by this clock, all timers do.
    member = await listeners(clock=lambda: time.monotonic() // 0.05 * 0.05)
    await member.announce(Announcement(mesh_name, "id-1", "", f"{mesh_name}-1", ("nats://127.0.0.1:4222",), MEMBER))
    await asyncio.sleep(0.5)  # until its three initial announcements are sent
    for number in range(2, 8):
        late = await listeners()
        await late.announce(Announcement(mesh_name, "", "", f"{mesh_name}-{number}", (), CANDIDATE))
        async with asyncio.timeout(1.0):
            await until(
                late,
                lambda late=late: MEMBER in {announcement.role for announcement in of_mesh(late, mesh_name).values()},
            )


async def test_of_four_that_start_together_one_creates_the_mesh_and_three_join(listeners, mesh_name):
    config = replace(LOCAL, discovery_wait_s=0.5)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def start(name: str):
        discovery = await listeners()
        me = LocalNode(f"{mesh_name}-{name}", mesh_name)
        step = await find_mesh(discovery, me, config)
        if isinstance(step, Create):
            await discovery.announce(Announcement(mesh_name, "id-1", "", me.node_id, (url,), MEMBER))
        return step

    async with server, asyncio.timeout(20):
        steps = await asyncio.gather(*(start(name) for name in "dbca"))
    assert [type(step) for step in steps].count(Create) == 1
    assert all(step.mesh_id == "id-1" and step.urls == (url,) for step in steps if isinstance(step, Join))


async def test_a_lone_node_creates_a_mesh_after_the_wait(listeners, mesh_name):
    began = time.monotonic()
    step = await find_mesh(await listeners(), LocalNode("lonely", mesh_name), LOCAL)
    assert step == Create()
    assert LOCAL.discovery_wait_s <= time.monotonic() - began


async def test_an_announced_mesh_that_does_not_answer_is_waited_for_and_not_created_again(listeners, mesh_name):
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()
    old = await listeners()
    await old.announce(Announcement(mesh_name, "id-1", "", f"{mesh_name}-old", (url,), MEMBER))
    newcomer = await listeners()
    await until(newcomer, lambda: of_mesh(newcomer, mesh_name))
    sentences: asyncio.Queue[str] = asyncio.Queue()
    looking = asyncio.create_task(find_mesh(newcomer, LocalNode("new", mesh_name), LOCAL, say=sentences.put_nowait))
    async with asyncio.timeout(WITHIN_S):
        assert "nothing answers there" in await sentences.get()
    port = int(url.rpartition(":")[2])
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    async with server, asyncio.timeout(WITHIN_S):
        assert await looking == Join((url,), "id-1", f"{mesh_name}-old")


async def test_first_reachable_tries_all_at_once():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        assert await first_reachable(("nats://127.0.0.1:1", "nats://no port", "x", "http://[", url)) == url
    assert await first_reachable(()) == ""


async def test_a_node_whose_network_comes_late_is_heard_then(listeners, mesh_name):
    """It has no such address before, and announces itself on the new one without being told again."""
    late, other = Discovery(("192.0.2.254",)), await listeners()
    await late.start()
    assert late.trouble
    await late.announce(
        Announcement(mesh_name, "id-1", "", f"{mesh_name}-late", (), MEMBER, routes=(("10.0.0.1", 6222),))
    )
    await late.move(LOOPBACK)
    try:
        assert not late.trouble
        await until(other, lambda: of_mesh(other, mesh_name))
        assert of_mesh(other, mesh_name)[f"{mesh_name}-late"].routes == (("10.0.0.1", 6222),)
    finally:
        await late.stop()


async def test_without_multicast_start_reports_it_and_goes_on(mesh_name):
    # 192.0.2.0/24 is reserved for documentation; this machine has no such address to bind
    discovery = Discovery(("192.0.2.254",))
    await discovery.start()
    assert "--join" in discovery.trouble
    assert await find_mesh(discovery, LocalNode("alone", mesh_name), LOCAL) == Create()
    await discovery.stop()
