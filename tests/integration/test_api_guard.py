"""Which requests the bridge answers, how it handles any body, and how it starts and stops; on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import build_app
from api.http.keys import GUARD, ApiSettings
from api.http.serving import serve
from api.routes import ROUTE_TABLE
from mesh.errors import CannotStart
from tests.integration.api_harness import Client, Memory, V


async def test_browsers_are_not_trusted(api: Client, memory: Memory) -> None:
    own = f"http://127.0.0.1:{api.port}"
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"):
        for headers, expected in (
            ({"Host": f"evil.example:{api.port}"}, 421), ({"Host": "127.0.0.1:1"}, 421),
            ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403),
            ({"Origin": f"http://127.0.0.1:{api.port + 1}"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
        ):  # fmt: skip
            status, _, got = await api(method, "/nothing", headers=headers)
            assert (status, "Access-Control-Allow-Origin" in got) == (expected, False)
            body = b'{"kind":"echo"}' if method == "POST" else None
            path = f"{V}/workload/submit" if method == "POST" else f"{V}/network/status"
            async with api.session.request(method, api.url + path, headers=headers, data=body) as answer:
                assert answer.status == expected
    assert not memory.views
    headers = {"Origin": own, "Sec-Fetch-Site": "same-origin", "Host": f"LOCALHOST:{api.port}"}
    assert (await api("GET", f"{V}/network/status", headers=headers))[0] == 200


@pytest.mark.parametrize("open_api", [False, True])
async def test_off_loopback_without_a_key_only_open_routes_answer(memory: Memory, open_api: bool) -> None:
    app = build_app(memory, ApiSettings(open_api=open_api))
    running = await serve(app, port=0)
    # No test may listen on a real network card, so the application is only configured as if it did.
    app[GUARD].trust = replace(app[GUARD].trust, loopback_only=False)
    async with aiohttp.ClientSession() as session:
        body = {"name": "x", "kind": "echo"}
        for route in ROUTE_TABLE:
            path = route.full_path.replace("{id}", "c1-9")
            async with session.request(route.method, running.url + path, json=body) as answer:
                assert (answer.status == 403) == (not open_api and not route.open), route.path
                if answer.status == 403:
                    assert "--open-api" in (await answer.json())["error"]["message"]
    await running.close()


async def test_a_taken_port_is_one_sentence(memory: Memory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} is in use; give this node another one with --api"):
            await serve(build_app(memory), "127.0.0.1", port)
    with pytest.raises(CannotStart, match="not an address of this machine"):
        await serve(build_app(memory), "192.0.2.1", 0)


async def test_closing_ends_long_answers(memory: Memory) -> None:
    running = await serve(build_app(memory), port=0)
    async with aiohttp.ClientSession() as session:
        body = {"kind": "echo"}
        async with session.post(f"{running.url}{V}/workload/submit", json=body) as answer:
            task = (await answer.json())["id"]
        reading = await session.get(f"{running.url}{V}/workload/{task}/events")
        memory.accepted.clear()
        waiting = asyncio.create_task(session.post(f"{running.url}{V}/workload/submit?wait=60", json=body))
        await memory.accepted.wait()
        async with asyncio.timeout(30):
            await running.close()
            assert (await waiting).status == 202 and b"event: state" in await reading.read()


async def test_no_body_causes_an_internal_error(api: Client, memory: Memory) -> None:
    started = len(memory.views)
    corpus = st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["kind", "payload", "requires", "delay_s", "x"]), inner, max_size=4)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
    bodies: list[tuple[bytes, bool, str]] = []

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(corpus, st.booleans(), st.sampled_from(["/workload/submit", "/nodes/register"]))
    def collect(body: bytes, packed: bool, path: str) -> None:
        bodies.append((body, packed, path))

    collect()
    for body, packed, path in bodies:
        headers = {"Content-Type": "application/msgpack"} if packed else {}
        status, _, _ = await api("POST", V + path, data=body, headers=headers)
        assert status in (200, 202, 400), body
    assert len(memory.views) >= started
