"""Each limit of the bridge: reached with a small value, it raises its alarm at four fifths and refuses beyond."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import pytest

from api.http import encodings, usage
from mesh.limits import Limits, alarms
from tests.integration.api_harness import Client, Memory, V, bridge, submit

SUBMIT = f"{V}/workload/submit"


_writers: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def limited(**limits: int) -> AsyncIterator[tuple[Client, Memory, Limits]]:
    memory, made = Memory(), Limits(**limits)
    async with bridge(memory, made) as api:
        try:
            yield api, memory, made
        finally:
            memory.changed.set()
            for writer in _writers:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in _writers), return_exceptions=True)
            _writers.clear()


async def opened(api: Client, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of its own, on which `sent` was sent; `limited` closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    _writers.append(writer)
    writer.write(sent)
    await writer.drain()
    return reader, writer


def head(api: Client, method: str = "POST", path: str = SUBMIT, *lines: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{api.port}", *lines, "", "")).encode()


async def until(condition, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_idle_connections_make_room_for_whoever_sends_a_request() -> None:
    async with limited(connections=10) as (api, _, limits):
        idle = [await opened(api) for _ in range(40)]
        await until(lambda: api.levels()["connections"] == 10)
        assert "connections" in alarms(api.levels(), limits)
        for _ in range(3):
            reader, _ = await opened(api, head(api, "GET", "/api/v1.2/healthz", "Connection: close"))
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        closed = [reader for reader, _ in idle if reader.at_eof() or await _ended(reader)]
        assert len(closed) >= 31, "the longest idle ones went first"


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.05):
            return await reader.read() == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def test_a_connection_too_many_is_answered_503_while_all_others_work() -> None:
    async with limited(connections=5) as (api, memory, limits):
        body = json.dumps({"workload_type": "echo"}).encode()
        waiting = head(api, "POST", f"{SUBMIT}?wait=30", f"Content-Length: {len(body)}") + body
        # The client of the harness holds one of the five.
        held = [await opened(api, waiting) for _ in range(5)]
        await until(lambda: len(memory.views) == 5)
        assert "connections" in alarms(api.levels(), limits)
        reader, _ = await opened(api, head(api, "GET", f"{V}/healthz"))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: " in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "busy"
        for task in list(memory.views):
            memory.finish(task)
        for reader, writer in held:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()
        reader, _ = await opened(api, head(api, "GET", f"{V}/healthz", "Connection: close"))
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_many_refused_connections_hold_nothing() -> None:
    async with limited(connections=1) as (api, memory, _):
        body = json.dumps({"workload_type": "echo"}).encode()
        _, serving = await opened(api, head(api, "POST", f"{SUBMIT}?wait=30", f"Content-Length: {len(body)}") + body)
        await until(lambda: bool(memory.views))
        sockets = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(usage.REFUSED + 30)]
        try:
            ended = [asyncio.to_thread(_is_closed, connection) for connection in sockets]
            assert sum(await asyncio.gather(*ended)) == len(sockets), "each is closed, the silent ones after a while"
        finally:
            for connection in sockets:
                connection.close()
            serving.close()


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_a_client_that_sends_no_request_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "FIRST_REQUEST_S", 0.1)
    monkeypatch.setattr(usage, "SWEEP_EVERY_S", 0.05)
    async with limited() as (api, _, _):
        silent, _ = await opened(api)
        slow, writer = await opened(api, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        async with asyncio.timeout(10):
            assert await silent.read() == b"" and await slow.read() == b""
        writer.close()


async def test_a_client_that_does_not_read_its_answer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "UNREAD_S", 0.2)
    monkeypatch.setattr(usage, "SWEEP_EVERY_S", 0.05)
    async with limited() as (api, memory, _):
        status, stored, _ = await api("POST", f"{V}/blobs", data=BytesIO(bytes(3_900_000)))
        assert status == 201 and memory.blobs
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", api.port))
            deaf.sendall(b"".join(head(api, "GET", f"{V}/blobs/{stored['blob']}") for _ in range(4)))
            await until(lambda: api.levels()["connections"] == 2)
            await until(lambda: api.levels()["connections"] == 1)


async def test_a_body_that_does_not_come_is_answered_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "BODY_S", 0.1)
    async with limited() as (api, _, _):
        for path in (SUBMIT, f"{V}/blobs"):
            reader, writer = await opened(api, head(api, "POST", path, "Content-Length: 5000") + b"{")
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            writer.close()


async def test_bodies_that_take_all_the_memory_are_refused() -> None:
    async with limited(body_memory_bytes=50_000) as (api, _, limits):
        part = head(api, "POST", SUBMIT, "Content-Length: 60000") + b"{" + bytes(41_000)
        _, writer = await opened(api, part)
        await until(lambda: "body_memory_bytes" in alarms(api.levels(), limits))
        status, answer, headers = await api(
            "POST", SUBMIT, json={"workload_type": "echo", "payload": {"x": "a" * 20_000}}
        )
        assert (status, answer["error"]["code"]) == (503, "busy") and headers["Retry-After"]
        writer.close()
        await until(lambda: api.levels()["body_memory_bytes"] == 0)
        await submit(api)


async def test_an_event_stream_too_many_is_refused() -> None:
    async with limited(event_streams=5) as (api, memory, limits):
        task = await submit(api)
        request = head(api, "GET", f"{V}/workload/{task}/events", "Connection: close")
        streams = [await opened(api, request) for _ in range(4)]
        await until(lambda: "event_streams" in alarms(api.levels(), limits))
        streams.append(await opened(api, request))
        await until(lambda: api.levels()["event_streams"] == 5)
        status, answer, _ = await api("GET", f"{V}/workload/{task}/events")
        assert (status, answer["error"]["code"]) == (503, "busy")
        memory.finish(task)
        for reader, _ in streams:
            assert b"event: end" in await reader.read()
        await until(lambda: api.levels()["event_streams"] == 0)


async def test_headers_too_large_or_too_many_are_answered_431() -> None:
    async with limited(header_bytes=300, headers=20) as (api, _, _):
        for headers in (["X-Long: " + "a" * 400], [f"X-{number}: a" for number in range(30)]):
            reader, _ = await opened(api, head(api, "GET", f"{V}/healthz", *headers))
            answer = await reader.read()
            assert answer.split(b" ", 2)[1] == b"431", answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"


async def test_sizes_of_bodies_are_limited() -> None:
    async with limited(body_bytes=2000, registration_bytes=500, decoded_blob_bytes=1000) as (api, _, _):
        large = {"workload_type": "echo", "payload": {"value": "a" * 3000}}
        registration = {"name": "pi", "labels": {"x": "a" * 600}}
        for path, options in (
            (SUBMIT, {"json": large}),
            (f"{V}/nodes/register", {"json": registration}),
            (f"{V}/blobs", {"data": gzip.compress(bytes(1500)), "headers": {"Content-Encoding": "gzip"}}),
        ):
            status, answer, _ = await api("POST", path, **options)
            assert (status, answer["error"]["code"]) == (413, "too_large"), path
