"""The connection: confirmed messages are stored, lost ones are reported, and it reconnects by itself."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlparse

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.bus.errors import KeyExists, WrongSequence
from mesh.config import LOCAL
from mesh.errors import BusUnavailable, Busy, QueztlError, TooLarge
from tests.proxy import Proxy


async def contents(bus: Bus, stream: str) -> list[tuple[str, bytes]]:
    """(subject, headers) of every message of a stream."""
    import base64

    state = (await bus.api(f"STREAM.INFO.{stream}"))["state"]
    found = []
    for sequence in range(state["first_seq"], state["last_seq"] + 1):
        try:
            message = (await bus.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence}))["message"]
        except QueztlError:
            continue
        found.append((message["subject"], base64.b64decode(message.get("hdrs", ""))))
    return found


async def test_an_absent_server_is_reported_at_once() -> None:
    with pytest.raises(BusUnavailable, match="127.0.0.1:1"):
        await Bus.connect(["nats://127.0.0.1:1"], name="x", config=LOCAL)


async def test_messages_arrive_in_order_and_requests_are_answered(bus_server) -> None:
    bus, other = await bus_server.connect("a"), await bus_server.connect("b")
    received: list[bytes] = []
    await bus.subscribe("some.subject", lambda message: received.append(message.data))
    await bus.subscribe("a.question", lambda message: bus.send(message.reply, message.data * 2))
    for number in range(1000):
        other.send("some.subject", str(number).encode())
    assert (await other.request("a.question", b"ab")).data == b"abab"
    await bus.flush()
    assert received == [str(number).encode() for number in range(1000)]
    with pytest.raises(BusUnavailable, match="nobody answers"):
        await bus.request("nobody.there", b"")


async def test_a_connection_to_a_server_that_sends_nothing_is_closed(bus_server, eventually) -> None:
    """The machine of a frozen server accepts connections: each is closed after a timeout, the last one with the bus."""
    proxy = Proxy(int(bus_server.url.rpartition(":")[2]))
    url = f"nats://127.0.0.1:{await proxy.start()}"
    try:
        bus = await Bus.connect([url], name="a", config=LOCAL, connect_timeout_s=1)
        proxy.mute = True
        proxy.cut()
        await eventually(lambda: proxy.dropped >= 2)
        proxy.mute = False
        await eventually(lambda: bus.connected)
        await bus.flush()
        proxy.mute = True
        await bus.close()
        await eventually(lambda: proxy.accepted == proxy.dropped + 2 and not proxy.carried)
    finally:
        await proxy.close()


async def test_failed_and_closed_connections_leave_no_socket_open(bus_server, eventually, monkeypatch) -> None:
    """A connection without any data, one whose last flush fails, and one that is made after the close."""
    port = int(bus_server.url.rpartition(":")[2])
    proxy = Proxy(port)
    url = f"nats://127.0.0.1:{await proxy.start()}"
    try:
        bus = await Bus.connect([url], name="a", config=LOCAL)

        async def reset(*_: object) -> None:
            raise ConnectionResetError

        monkeypatch.setattr(bus._line, "drain", reset)
        bus._client._pending, bus._client._pending_data_size = [b"PING\r\n"], 6
        monkeypatch.setattr(bus._client, "flush", reset)
        await bus.close()
        await eventually(lambda: not proxy.carried)
        with pytest.raises(ConnectionAbortedError):
            await bus._line.connect(urlparse(url), 4096, 1)
        await eventually(lambda: proxy.accepted == 2 and not proxy.carried)
        proxy.mute = True
        with pytest.raises(BusUnavailable, match="no bus server answers"):
            await Bus.connect([url], name="a", config=LOCAL, connect_timeout_s=1)
        await eventually(lambda: proxy.dropped == 1)
    finally:
        await proxy.close()


async def test_a_close_that_is_cancelled_closes_the_connection(bus_server, eventually) -> None:
    proxy = Proxy(int(bus_server.url.rpartition(":")[2]))
    try:
        bus = await Bus.connect([f"nats://127.0.0.1:{await proxy.start()}"], name="a", config=LOCAL)
        closing = asyncio.create_task(bus.close())
        await asyncio.sleep(0)  # it waits for the answer to its last flush
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await eventually(lambda: not proxy.carried)
    finally:
        await proxy.close()


async def test_a_temporary_error_is_retried(bus_server) -> None:
    """Servers give this error during an election; here a subscriber to an unused endpoint of JetStream gives it."""
    bus, other = await bus_server.connect("a"), await bus_server.connect("b")
    not_yet = {"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}
    answers = [not_yet, not_yet, {"ready": True}]
    await other.subscribe("$JS.API.PRETEND", lambda message: other.send(message.reply, json.dumps(answers[0]).encode()))
    await other.subscribe("$JS.API.PRETEND", lambda _: len(answers) > 1 and answers.pop(0))
    assert await bus.api("PRETEND") == {"ready": True}
    answers[:] = [not_yet]
    with pytest.raises(BusUnavailable, match="no leader"):
        await bus.api("PRETEND", timeout_s=0.5)


async def test_a_request_without_responders_is_repeated(bus_server) -> None:
    """A requester can't distinguish a stream without a leader from one that does not exist."""
    bus = await bus_server.connect("a")
    kv = bus.kv("later")
    listing = asyncio.create_task(kv.entries())
    await asyncio.sleep(0)
    await bus.flush()
    await bus.api("STREAM.CREATE.KV_later", {"name": "KV_later", "subjects": ["$KV.later.>"], "allow_direct": True})
    await kv.put("a", b"1")
    assert [entry.key for entry in await listing] in (["a"], [])
    with pytest.raises(BusUnavailable, match="can't list never"):
        await bus.kv("never").entries()
    other = await bus_server.connect("b")
    asked = asyncio.create_task(bus.api("PRETEND", repeat=True))
    await other.subscribe("$JS.API.PRETEND", lambda message: other.send(message.reply, b"{}"))
    assert await asked == {}


async def test_a_flush_waits_for_all_that_was_sent_before(bus_server) -> None:
    bus = await bus_server.connect("a")
    received: list[bytes] = []
    await bus.subscribe("some.subject", lambda message: received.append(message.data))
    for number in range(100):
        bus.send("some.subject", str(number).encode())
        await bus.flush()
        assert len(received) == number + 1
    bus.send_deferred("some.subject", b"x")
    await bus.flush()
    assert received[-1] == b"x"


async def test_a_deferred_message_is_sent_without_another_one(bus_server, eventually) -> None:
    bus = await bus_server.connect("a")
    received: list[bytes] = []
    await bus.subscribe("some.subject", lambda message: received.append(message.data))
    bus.send_deferred("some.subject", b"x")
    await eventually(lambda: received == [b"x"])


async def test_headers_arrive_unchanged(bus_server, eventually) -> None:
    bus = await bus_server.connect("a")
    received = []
    await bus.subscribe("with.headers", received.append)
    bus.send("with.headers", b"x", headers={"One": "1", "Two": "a: b"})
    await eventually(lambda: received)
    assert (received[0].headers["One"], received[0].headers["Two"]) == ("1", "a: b")


async def test_a_closed_subscription_receives_nothing_more(bus_server) -> None:
    bus = await bus_server.connect("a")
    received = []
    subscription = await bus.subscribe("x.y", received.append)
    await subscription.close()
    bus.send("x.y", b"")
    await bus.flush()
    assert received == []


async def test_a_cancelled_flush_does_not_disturb_later_ones(bus_server) -> None:
    bus = await bus_server.connect("a")
    flush = asyncio.create_task(bus.flush())
    await asyncio.sleep(0)
    flush.cancel()
    await asyncio.wait([flush])
    for _ in range(3):
        await bus.flush()
    assert (await bus.api("INFO"))["streams"] > 0 and bus.epoch == 1


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(bus_server) -> None:
    bus, went_on = await bus_server.connect("a"), []

    async def flush_and_go_on() -> None:
        await bus.flush()
        await asyncio.sleep(0)
        went_on.append(1)

    late = asyncio.create_task(flush_and_go_on())
    await bus.flush()  # both answers come in one read
    late.cancel()
    await asyncio.wait([late])
    assert late.cancelled() and not went_on


async def test_a_too_large_message_and_a_closed_connection_are_errors(bus_server) -> None:
    bus = await Bus.connect([bus_server.url], name="x", config=LOCAL)
    with pytest.raises(TooLarge):
        bus.send("x", b"0" * (bus.max_payload + 1))
    await bus.close()
    with pytest.raises(BusUnavailable):
        bus.send("x", b"0")


async def test_everything_confirmed_survives_a_kill_of_the_server(bus_server, eventually) -> None:
    bus = await bus_server.connect("a")
    lost, back = [], asyncio.Event()
    bus.on_lost.append(lambda: lost.append(1))
    bus.on_back.append(back.set)

    async def store(number: int) -> str:
        subject = subjects.lane_subject("echo", "any", "normal", f"c1-{number}")
        # Half of the messages may be resent (they carry an id), half may not.
        await bus.store(subject, b"x", msg_id=f"c1-{number}" if number % 2 else "", timeout_s=30)
        return subject

    stores = [asyncio.create_task(store(number)) for number in range(250)]
    await asyncio.sleep(0)
    stores += [asyncio.create_task(store(number)) for number in range(250, 500)]
    await asyncio.wait(stores, return_when=asyncio.FIRST_COMPLETED)
    bus_server.kill()
    await eventually(lambda: lost)
    await bus_server.start()
    outcomes = await asyncio.gather(*stores, return_exceptions=True)
    await back.wait()
    assert bus.connected and bus.epoch == 2 and bus.unconfirmed == 0

    confirmed = [outcome for outcome in outcomes if isinstance(outcome, str)]
    refused = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert len(confirmed) >= 250 and all(isinstance(outcome, BusUnavailable) for outcome in refused)
    # All messages that may be resent are confirmed in the end.
    assert {f"c1-{number}" for number in range(1, 500, 2)} <= {subject.rpartition(".")[2] for subject in confirmed}
    stored = await contents(bus, subjects.WORK)
    for subject in confirmed:
        copies = [headers for name, headers in stored if name == subject]
        # The server may have lost its table of ids: then a second copy is marked as resent.
        assert copies and sum(b"Queztl-Resent" not in headers for headers in copies) <= 1
    assert len({name for name, _ in stored}) <= 500


async def test_subscriptions_and_callbacks_are_restored_after_a_kill(bus_server, eventually) -> None:
    bus, received, epochs = await bus_server.connect("a"), [], []

    async def failing() -> None:
        raise BusUnavailable("not yet")

    await bus.subscribe("x.y", received.append)
    bus.on_back += [failing, lambda: epochs.append(bus.epoch)]
    for epoch in (2, 3):
        bus_server.kill()
        await bus_server.start()
        await eventually(lambda epoch=epoch: epochs and epochs[-1] == epoch)
        bus.send("x.y", b"")
        await eventually(lambda epoch=epoch: len(received) == epoch - 1)


async def test_a_store_that_may_not_be_resent_fails_with_the_connection(bus_server) -> None:
    bus = await bus_server.connect("a")
    bus_server.kill()
    waiting = asyncio.create_task(bus.store("mesh.event.x", b"1"))
    resent = asyncio.create_task(bus.store("mesh.event.y", b"2", msg_id="y", timeout_s=30))
    await asyncio.sleep(0)
    await bus_server.start()
    with pytest.raises(BusUnavailable):
        await waiting
    assert await resent > 0


async def test_a_full_queue_is_busy_and_another_subject_has_no_responders(bus_server) -> None:
    bus = await bus_server.connect("a")
    config = (await bus.api(f"STREAM.INFO.{subjects.WORK}"))["config"] | {"max_bytes": 20_000}
    await bus.api(f"STREAM.UPDATE.{subjects.WORK}", config)
    with pytest.raises(Busy, match="queue is full") as busy:
        for number in range(100):
            await bus.store(f"work.echo.any.normal.c1-{number}", b"0" * 1000)
    assert busy.value.retry_after_s > 0 and not isinstance(busy.value, BusUnavailable)
    for subject in ("work", "work.a.b", "work.a.b.c", "work.a.b.c.d.e", "task.a.1.other", "task.a.state", "dead.x"):
        with pytest.raises(BusUnavailable):
            await bus.store(subject, b"x", resend=False)


# --- key-value ---------------------------------------------------------------------------------------
async def test_keys_are_created_once_updated_by_revision_and_recreated(bus_server) -> None:
    kv = (await bus_server.connect("a")).kv(subjects.KV_NODES)
    assert await kv.get("n1") is None
    first = await kv.create("n1", b"one")
    with pytest.raises(KeyExists):
        await kv.create("n1", b"two")
    second = await kv.update("n1", b"two", first)
    with pytest.raises(WrongSequence):
        await kv.update("n1", b"three", first)
    entry = await kv.get("n1")
    assert (entry.key, entry.value, entry.revision) == ("n1", b"two", second)
    with pytest.raises(WrongSequence):
        await kv.delete("n1", first)
    await kv.delete("n1", second)
    assert await kv.get("n1") is None and await kv.keys() == []
    again = await kv.create("n1", b"four")
    assert (await kv.get("n1")).revision == again > second
    await kv.put("n2", b"x")
    assert sorted(await kv.keys()) == ["n1", "n2"]
    assert [entry.key for entry in await kv.entries("n2")] == ["n2"]


async def test_one_of_several_concurrent_creators_wins(bus_server) -> None:
    buses = [await bus_server.connect(f"b{number}") for number in range(3)]
    for mark in (False, True):
        made = await asyncio.gather(
            *(bus.kv(subjects.KV_LEASE).create("leader", b"%d" % n) for n, bus in enumerate(buses * 4)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, int) for outcome in made) == 1
        assert all(isinstance(outcome, (int, KeyExists)) for outcome in made), made
        if not mark:  # the second time, the key has a deletion marker
            await buses[0].kv(subjects.KV_LEASE).delete("leader")


async def test_an_expired_key_is_absent_and_can_be_recreated(bus_server, eventually) -> None:
    bus = await bus_server.connect("a")
    kv, gone = bus.kv(subjects.KV_NODES), asyncio.Event()
    await kv.create("n1", b"one", ttl_s=1)
    assert (await kv.get("n1")).value == b"one"
    async with asyncio.timeout(10):
        while await kv.get("n1") is not None:
            await asyncio.sleep(0.1)
    assert await kv.keys() == []
    changes: list[str] = []
    await kv.watch(lambda key: (changes.append(key), gone.set()))
    assert await kv.create("n1", b"two") > 0
    await gone.wait()
    assert changes == ["n1"] and (await kv.get("n1")).value == b"two"
