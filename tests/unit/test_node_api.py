"""Calls of a node's API: addresses as people write them, and the error for each kind of answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mesh.endpoint import bus_urls
from mesh.errors import BadInput, BusUnavailable, Conflict, Fault, NotFound
from mesh.node_api import LOCAL_API, call, mesh_address, network_status, send

STATUS = {"mesh": "m", "registry": {"nodes": []}, "bus": {"urls": ["nats://127.0.0.1:1"]}}
REFUSAL = {"error": {"code": "c", "message": "It is wrong.", "faults": [{"field": "a", "problem": "is odd"}]}}


@contextmanager
def answering(status: int, body: object) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """(URL, requests seen) of a server that answers everything with `status` and `body` (JSON unless bytes)."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            seen.append((self.command, self.path, self.rfile.read(length)))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", LOCAL_API), ("127.0.0.1:8000", "http://127.0.0.1:8000"), ("box", "http://box:8000"),
        ("[::1]:9", "http://[::1]:9"), ("http://box:1/", "http://box:1"), ("https://box", "https://box"),
        (" http://box:1 ", "http://box:1"), ("nats://a:1,nats://b:2", "nats://a:1,nats://b:2"), ("tls://a:1", "tls://a:1"),
    ],
)  # fmt: skip
def test_addresses_as_people_write_them(given: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEZTL_URL", given)
    assert mesh_address() == mesh_address(None) == address
    monkeypatch.setenv("QUEZTL_URL", "http://other:1")
    assert mesh_address(given) == (address if given else "http://other:1")


@pytest.mark.parametrize("given", ["ftp://a", "http://", "http://:80", "a:99999", "a:b", "http://[::1", "a b", "a\nb"])
def test_what_is_not_an_address_is_refused(given: str) -> None:
    with pytest.raises(BadInput, match=r"use nats://HOST:PORT or http://HOST:PORT"):
        mesh_address(given)


async def test_a_call_sends_json_and_returns_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(200, STATUS) as (url, seen):
        assert await call(url, "PUT", "/x", {"ü": 1}) == STATUS
        assert await network_status(url) == STATUS
        assert await bus_urls(url.removeprefix("http://")) == ("nats://127.0.0.1:1",)
    assert seen[0][:2] == ("PUT", "/api/v1.2/x") and json.loads(seen[0][2]) == {"ü": 1}
    assert [request[:2] for request in seen[1:]] == [("GET", "/api/v1.2/network/status")] * 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadInput), (404, NotFound), (409, Conflict), (403, BusUnavailable), (503, BusUnavailable)],
)
async def test_a_refusal_has_the_sentence_of_the_node(status: int, kind: type[Exception]) -> None:
    with answering(status, REFUSAL) as (url, _), pytest.raises(kind, match=r"^It is wrong\.$") as caught:
        await call(url, "GET", "/x")
    assert getattr(caught.value, "faults", ()) == ((Fault("a", "is odd"),) if kind is BadInput else ())


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, [1]), (500, {}), (404, b""), (200, {"mesh": 1})])
async def test_a_server_that_is_not_a_node(status: int, body: object) -> None:
    with answering(status, body) as (url, _), pytest.raises(BusUnavailable, match=rf"{url} answers, but not as a node"):
        await network_status(url)


def speaks_first(connection: socket.socket) -> None:
    connection.sendall(b"INFO {}\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize("behave", [speaks_first, hangs_up], ids=lambda behave: behave.__name__)
async def test_a_server_that_does_not_speak_http(behave: Callable[[socket.socket], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BusUnavailable, match=rf"^no node answers at {url} \([^)]+\)$"):
            await call(url, "GET", "/x")
        thread.join()


async def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(BusUnavailable, match=rf"^no node answers at {url} \(Connection refused\)$"):
        await call(url, "GET", "/x")
    with pytest.raises(OSError):
        send(f"{url}/x", timeout_s=1)
