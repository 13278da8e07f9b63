"""Answers below the handlers of the bridge: encoded bodies, unparsable requests, methods, newlines."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from functools import cache
from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientSession

from api.app import build_app
from api.http.serving import serve
from api.routes import ROUTE_TABLE
from tests.integration.api_harness import Client, Memory, V, fields

SUBMIT = b'{"kind": "echo", "payload": {"value": 1}}'


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", gzip.compress(SUBMIT, mtime=0)),
        ("X-GZip", gzip.compress(SUBMIT, mtime=0)),
        ("gzip", gzip.compress(SUBMIT[:9], mtime=0) + gzip.compress(SUBMIT[9:], mtime=0)),
        ("deflate", zlib.compress(SUBMIT)),
        ("deflate", raw_deflate(SUBMIT)),
        ("identity", SUBMIT),
    ],
)
async def test_encoded_bodies_are_decoded(api: Client, memory: Memory, encoding: str, encoded: bytes) -> None:
    headers = {"Content-Encoding": encoding}
    assert (await api("POST", f"{V}/workload/submit", data=encoded, headers=headers))[0] == 202
    _, blob, _ = await api("POST", f"{V}/blobs", data=encoded, headers=headers)
    assert memory.blobs[blob["blob"]][1] == SUBMIT and blob["size"] == len(SUBMIT)


@cache
def bomb() -> bytes:
    """300 MiB in 306 KB."""
    packed = zlib.compressobj(wbits=31)
    return b"".join([packed.compress(bytes(1 << 20)) for _ in range(300)]) + packed.flush()


@pytest.mark.parametrize("path", ["workload/submit", "blobs", "nodes/register", "benchmarks/realworld/run"])
async def test_limits_count_decoded_bytes(api: Client, memory: Memory, path: str) -> None:
    assert len(bomb()) < 310_000
    status, answer, _ = await api("POST", f"{V}/{path}", data=bomb(), headers={"Content-Encoding": "gzip"})
    assert (status, answer["error"]["code"]) == (413, "too_large")
    assert not memory.blobs and memory.largest_piece <= 256 * 1024


async def test_an_encoded_blob_has_a_limit_where_others_have_none(memory: Memory) -> None:
    running = await serve(build_app(memory), port=0)
    async with ClientSession() as session:
        url, headers = f"{running.url}{V}/blobs", {"Content-Encoding": "gzip"}
        async with session.post(url, data=bomb(), headers=headers) as answer:
            assert answer.status == 413 and str(64 << 20) in (await answer.json())["error"]["message"]
        async with session.post(url, data=BytesIO(bytes(65 << 20))) as answer:
            assert answer.status == 201
    await running.close()


@pytest.mark.parametrize("path", ["workload/submit", "blobs", "nodes/register"])
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "br, gzip", "\u00e9"])
async def test_an_unknown_encoding_is_refused_in_the_format_of_all_errors(
    api: Client, path: str, encoding: str
) -> None:
    status, answer, headers = await api("POST", f"{V}/{path}", data=b"x", headers={"Content-Encoding": encoding})
    assert (status, answer["error"]["code"]) == (415, "unsupported_encoding")
    assert headers["Accept-Encoding"] == "gzip, deflate" and headers["Server"] == "queztl"
    assert "pip" not in answer["error"]["message"]


@pytest.mark.parametrize("path", ["workload/submit", "blobs"])
@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", SUBMIT),
        ("gzip", gzip.compress(SUBMIT, mtime=0)[:-9]),
        ("gzip", gzip.compress(SUBMIT, mtime=0) + b"more"),
        ("deflate", b"\xff" * 20),
        ("deflate", zlib.compress(SUBMIT)[:-3]),
        ("deflate", zlib.compress(SUBMIT) + b"more"),
    ],
)
async def test_a_broken_encoding_is_a_client_error(
    api: Client, memory: Memory, path: str, encoding: str, encoded: bytes
) -> None:
    headers = {"Content-Encoding": encoding}
    status, answer, _ = await api("POST", f"{V}/{path}", data=encoded, headers=headers)
    assert (status, fields(answer)) == (400, {"body"}) and not memory.blobs


async def raw(api: Client, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send these bytes; returns (status, headers, document) of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request)
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return int(head[0].split()[1]), headers, json.loads(body)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: 1\r\n" % number for number in range(200)) + b"\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_an_unparsable_request_is_answered_in_the_format_of_all_errors(api: Client, request_: bytes) -> None:
    status, headers, document = await raw(api, request_)
    is_large = len(request_) > 1000
    expected = (431, "headers_too_large") if is_large else (400, "bad_request")
    assert (status, document["error"]["code"]) == expected and document["error"]["faults"] == []
    assert headers["content-type"].startswith("application/json") and headers["server"] == "queztl"
    assert "\n" not in document["error"]["message"] and len(document["error"]["message"]) < 300


@pytest.mark.parametrize("path", ["workload/submit", "blobs"])
async def test_a_body_with_broken_chunks_is_a_client_error(api: Client, path: str) -> None:
    head = f"POST {V}/{path} HTTP/1.1\r\nHost: localhost:{api.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, headers, document = await raw(api, head.encode() + b"zz\r\nab\r\n")
    assert (status, headers["server"]) == (400, "queztl") and document["error"]["message"]


async def test_an_unknown_expectation_is_answered_in_the_format_of_all_errors(api: Client) -> None:
    head = f"POST {V}/workload/submit HTTP/1.1\r\nHost: localhost:{api.port}\r\nContent-Length: 2\r\nExpect: "
    status, headers, document = await raw(api, head.encode() + b"tea\r\n\r\n{}")
    assert (status, headers["server"], document["error"]["code"]) == (417, "queztl", "expectation_failed")
    assert (await api("POST", f"{V}/workload/submit", data=SUBMIT, expect100=True))[0] == 202


async def test_options_and_allow_list_exactly_the_methods_of_a_path(api: Client) -> None:
    paths: dict[str, set[str]] = {}
    for route in ROUTE_TABLE:
        methods = {"GET", "HEAD"} if route.method == "GET" else {route.method}
        paths.setdefault(route.full_path, {"OPTIONS"}).update(methods)
    for template, methods in paths.items():
        path = template.replace("{id}", "c1-1")
        status, body, headers = await api("OPTIONS", path)
        assert (status, body, set(headers["Allow"].split(", "))) == (204, b"", methods), path
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - methods:
            status, answer, headers = await api(method, path)
            assert (status, answer["error"]["code"]) == (405, "unsupported"), (method, path)
            assert set(headers["Allow"].split(", ")) == methods, (method, path)
    assert (await api("OPTIONS", f"{V}/nothing"))[0] == 404


async def test_json_ends_with_a_newline(api: Client) -> None:
    for path in ("/nothing", f"{V}/network/status", f"{V}/workload/x/status", f"{V}/openapi.json", f"{V}/healthz"):
        async with api.session.get(api.url + path, headers={"Accept-Encoding": "identity"}) as answer:
            text = await answer.read()
        assert text.endswith(b"}\n") and int(answer.headers["Content-Length"]) == len(text), path
