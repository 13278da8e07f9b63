"""Every provider keeps what `scaling/providers/base.py` promises: one node a token, ended means gone."""

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

#: Generous: a process that is told to end while it is still importing ends when it has installed its handlers.
GONE_WITHIN_S = 60.0


@pytest.fixture(params=["fake", "local"])
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Provider]:
    if request.param == "fake":
        yield FakeProvider(clock=time.time)
        return
    made = LocalProvider(tmp_path, lambda: ["--interface", "lo"])
    yield made
    # Whatever a failed test left behind: only what this folder's nodes are.
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            process.kill()


@pytest.fixture
def order() -> Order:
    """For a mesh that is not there: a local node tries to join for ten seconds, long enough to be looked at."""
    mesh, url = new_token("m"), f"nats://127.0.0.1:{free_port()}"
    return Order(new_token("x"), "", mesh, "nowhere", (url,), time.time() + 60)


async def offered(provider: Provider, order: Order) -> Order:
    return replace(order, offer=(await provider.offers())[0].id)


async def gone(provider: Provider, instance: Instance) -> None:
    """Ended as the controller does it: asked again until the list no longer tells of it."""

    async def ended() -> bool:
        await provider.terminate(instance.id)
        return all(one.id != instance.id for one in await provider.list(instance.mesh_id))

    await eventually(ended, GONE_WITHIN_S, f"{instance.id} is still there")


async def test_it_is_a_provider_and_its_offers_are_its_own(provider: Provider) -> None:
    assert isinstance(provider, Provider)
    offers = await provider.offers()
    assert offers and len({one.id for one in offers}) == len(offers)
    assert all(one.provider == provider.name and one.price_usd_h >= 0 and one.start_s >= 0 for one in offers)
    assert provider.paid == any(one.price_usd_h > 0 for one in offers)


async def test_a_token_starts_one_node_which_is_listed_for_its_mesh_only(provider: Provider, order: Order) -> None:
    order = await offered(provider, order)
    made = await provider.launch(order)
    again = await provider.launch(order)
    assert (made.id, made.token, made.mesh_id, made.offer) == (again.id, order.token, order.mesh_id, order.offer)
    listed = await provider.list(order.mesh_id)
    assert [(one.id, one.token, one.offer) for one in listed] == [(made.id, order.token, order.offer)]
    assert abs(listed[0].expires_at - order.expires_at) <= 1.0 and abs(listed[0].launched_at - time.time()) < 60
    assert not await provider.list(new_token("m"))
    await gone(provider, made)


async def test_ending_is_repeatable_and_ends_that_one_only(provider: Provider, order: Order) -> None:
    order = await offered(provider, order)
    one, other = await provider.launch(order), await provider.launch(replace(order, token=new_token("x")))
    await gone(provider, one)
    await provider.terminate(one.id)
    await provider.terminate("999999999")
    assert [left.id for left in await provider.list(order.mesh_id)] == [other.id]
    await gone(provider, other)


async def test_an_offer_it_does_not_have_is_refused_and_starts_nothing(provider: Provider, order: Order) -> None:
    with pytest.raises(LaunchRefused) as caught:
        await provider.launch(replace(order, offer="moon"))
    assert "moon" in caught.value.message
    assert not await provider.list(order.mesh_id)


# --- what only processes can get wrong -------------------------------------------------------------
async def test_local_never_signals_a_process_it_did_not_start(tmp_path: Path) -> None:
    """One without the tag, one that only mentions it, and one that runs no node."""
    made = LocalProvider(tmp_path, list)
    sleep = "import time; time.sleep(60)"
    tag = "m1.local.x1.1"
    strangers = [
        subprocess.Popen([sys.executable, "-c", sleep, *more])  # noqa: ASYNC220
        for more in ([], [local.TAG, tag], ["-m", "nodes", local.TAG, tag])
    ]
    try:
        for one in strangers:
            await made.terminate(str(one.pid))
        await made.terminate(str(os.getpid()))
        assert not await made.list("m1")
        assert all(one.poll() is None for one in strangers)
    finally:
        for one in strangers:
            one.kill()
            one.wait()


async def test_another_process_finds_what_this_one_started(tmp_path: Path, order: Order) -> None:
    """As after a change of master: nothing but the tags says whose it is."""
    mine, other = (LocalProvider(tmp_path / name, lambda: ["--interface", "lo"]) for name in ("a", "b"))
    made = await mine.launch(await offered(mine, order))
    try:
        assert [one.token for one in await other.list(order.mesh_id)] == [order.token]
        assert (await other.launch(await offered(other, order))).id == made.id
        await gone(other, made)
    finally:
        with_pid = [one for one in psutil.process_iter() if str(one.pid) == made.id]
        for one in with_pid:
            one.kill()
    assert not await mine.list(order.mesh_id)


def test_a_tag_is_read_only_from_a_node_of_ours() -> None:
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

    await eventually(left, GONE_WITHIN_S, "the node still looks for its mesh")
    assert "can't join" in (tmp_path / order.token / "node.log").read_text()
