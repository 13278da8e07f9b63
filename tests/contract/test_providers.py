"""Every provider fulfils `scaling/providers/base.py`: one node a token, and a terminated node ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mesh.discovery.identity import new_token
from scaling.providers import local
from scaling.providers.base import Instance, LaunchRefused, Order, Provider
from scaling.providers.fake import FakeProvider
from scaling.providers.local import LocalProvider, read_tag
from tests.nodes import eventually
from tests.ports import free_port

#: Generous: a process that gets its signal while it still imports ends once it has installed its handlers.
GONE_WITHIN_S = 60.0


@pytest.fixture(params=["fake", "local"])
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Provider]:
    if request.param == "fake":
        yield FakeProvider(clock=time.time)
        return
    made = LocalProvider(tmp_path, lambda: ["--interface", "lo"])
    yield made
    # Kill what a failed test left behind, and only nodes of this folder.
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in argument for argument in process.info["cmdline"] or ()):
            process.kill()


@pytest.fixture
def order() -> Order:
    """An order for an absent mesh: a local node tries to join for ten seconds, long enough for the tests."""
    mesh, url = new_token("m"), f"nats://127.0.0.1:{free_port()}"
    return Order(new_token("x"), "", mesh, "nowhere", (url,), time.time() + 60)


async def offered(provider: Provider, order: Order) -> Order:
    return replace(order, offer=(await provider.offers())[0].id)


async def gone(provider: Provider, instance: Instance) -> None:
    """Terminate an instance as the controller does: repeat until it is no longer listed."""

    async def ended() -> bool:
        await provider.terminate(instance.id)
        return all(listed.id != instance.id for listed in await provider.list(instance.mesh_id))

    await eventually(ended, GONE_WITHIN_S, f"{instance.id} is still listed")


async def test_it_is_a_provider_and_its_offers_are_its_own(provider: Provider) -> None:
    assert isinstance(provider, Provider)
    offers = await provider.offers()
    assert offers and len({offer.id for offer in offers}) == len(offers)
    assert all(offer.provider == provider.name and offer.price_usd_h >= 0 and offer.start_s >= 0 for offer in offers)
    assert provider.paid == any(offer.price_usd_h > 0 for offer in offers)


async def test_a_token_starts_one_node_which_is_listed_for_its_mesh_only(provider: Provider, order: Order) -> None:
    order = await offered(provider, order)
    made = await provider.launch(order)
    again = await provider.launch(order)
    assert (made.id, made.token, made.mesh_id, made.offer) == (again.id, order.token, order.mesh_id, order.offer)
    listed = await provider.list(order.mesh_id)
    assert [(instance.id, instance.token, instance.offer) for instance in listed] == [
        (made.id, order.token, order.offer)
    ]
    assert abs(listed[0].expires_at - order.expires_at) <= 1.0 and abs(listed[0].launched_at - time.time()) < 60
    assert not await provider.list(new_token("m"))
    await gone(provider, made)


async def test_ending_is_repeatable_and_ends_that_one_only(provider: Provider, order: Order) -> None:
    order = await offered(provider, order)
    made, other = await provider.launch(order), await provider.launch(replace(order, token=new_token("x")))
    await gone(provider, made)
    await provider.terminate(made.id)
    await provider.terminate("999999999")
    assert [remaining.id for remaining in await provider.list(order.mesh_id)] == [other.id]
    await gone(provider, other)


async def test_an_offer_it_does_not_have_is_refused_and_starts_nothing(provider: Provider, order: Order) -> None:
    with pytest.raises(LaunchRefused) as caught:
        await provider.launch(replace(order, offer="moon"))
    assert "moon" in caught.value.message
    assert not await provider.list(order.mesh_id)


# --- processes -------------------------------------------------------------------------------------
async def test_local_never_signals_a_process_it_did_not_start(tmp_path: Path) -> None:
    """A process without the tag, one that only mentions it, and one that runs no node."""
    made = LocalProvider(tmp_path, list)
    sleep = "import time; time.sleep(60)"
    tag = "m1.local.x1.1"
    strangers = [
        subprocess.Popen([sys.executable, "-c", sleep, *more])  # noqa: ASYNC220
        for more in ([], [local.TAG, tag], ["-m", "nodes", local.TAG, tag])
    ]
    try:
        for stranger in strangers:
            await made.terminate(str(stranger.pid))
        await made.terminate(str(os.getpid()))
        assert not await made.list("m1")
        assert all(stranger.poll() is None for stranger in strangers)
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


async def test_another_process_finds_what_this_one_started(tmp_path: Path, order: Order) -> None:
    """As after a change of leader: only the tags say whose process it is."""
    mine, other = (LocalProvider(tmp_path / name, lambda: ["--interface", "lo"]) for name in ("a", "b"))
    made = await mine.launch(await offered(mine, order))
    try:
        assert [instance.token for instance in await other.list(order.mesh_id)] == [order.token]
        assert (await other.launch(await offered(other, order))).id == made.id
        await gone(other, made)
    finally:
        with_pid = [process for process in psutil.process_iter() if str(process.pid) == made.id]
        for process in with_pid:
            process.kill()
    assert not await mine.list(order.mesh_id)


def test_a_tag_is_read_only_from_a_node_process() -> None:
    tag = ["--started-as", "m1.local.x1.1700000000"]
    assert read_tag(["python", "-P", "-m", "node", *tag]) == ("m1", "local", "x1", 1.7e9)
    for command in (
        [], tag, ["python", "-m", "node"], ["python", "-m", "node", "--started-as"], ["python", "-m", "nod", *tag],
        ["python", "-m", "node", "--started-as", "m1.local.x1"], ["python", "-m", "node", "--started-as", "a.b.c.d"],
        ["python", *tag, "-m"],
    ):  # fmt: skip
        assert read_tag(command) is None, command


async def test_a_node_without_a_mesh_to_join_ends_by_itself_and_its_log_says_why(tmp_path: Path, order: Order) -> None:
    made = LocalProvider(tmp_path, lambda: ["--interface", "lo"])
    await made.launch(await offered(made, order))

    async def left() -> bool:
        await asyncio.sleep(0.2)
        return not await made.list(order.mesh_id)

    await eventually(left, GONE_WITHIN_S, "the node still searches for its mesh")
    assert "can't join" in (tmp_path / order.token / "node.log").read_text()
