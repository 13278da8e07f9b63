"""The bridge on a real bus: answers that depend on the contents of its stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.client import Mesh
from mesh.config import LOCAL
from mesh.coordination import MeshRecord
from mesh.membership.mesh_record import create_mesh_record
from mesh.messages import WIRE_VERSION
from mesh.views import Accepted, SubmitRequest
from tests.integration.api_harness import Client, Memory, V, bridge, fields


class OnBus(Memory):
    """Services with the tasks, blobs and dead letters of a real mesh."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self.client = mesh

    @property
    def mesh(self) -> Any:
        return self.client

    async def accept(self, request: SubmitRequest) -> Accepted:
        return await self.client.accept(request)


@pytest.fixture
async def bus(bus_server: Any) -> Bus:
    connected = await bus_server.connect("bridge")
    await create_mesh_record(connected, MeshRecord(id="m1", name="queztl", wire_version=WIRE_VERSION, epoch="w0"))
    return connected


@pytest.fixture
async def api(bus: Bus) -> AsyncIterator[Client]:
    async with Mesh(bus=bus, config=LOCAL) as mesh, bridge(OnBus(mesh)) as client:
        yield client


@pytest.mark.parametrize("number", ["0", "00", "000000000000000000", "9" * 18, "9" * 19, "9" * 20])
async def test_a_number_that_no_message_has_is_not_found(api: Client, number: str) -> None:
    calls = [("GET", f"workload/{number}/{path}") for path in ("status", "result", "events")]
    calls += [("DELETE", f"workload/{number}"), ("GET", f"dead/{number}"), ("POST", f"dead/{number}/replay")]
    calls += [("GET", f"workload/w0-{number}/status"), ("GET", f"blobs/b-{number}")]
    for method, path in calls:
        status, answer, _ = await api(method, f"{V}/{path}")
        assert (status, answer["error"]["code"]) == (404, "not_found"), (method, path)


async def test_a_message_at_the_ingress_is_found_by_its_number(api: Client, bus: Bus) -> None:
    sequence = await bus.store(subjects.ingress("echo"), b"{}")
    for number in (str(sequence), f"000{sequence}"):
        status, answer, _ = await api("GET", f"{V}/workload/{number}/status")
        assert (status, answer["id"]) == (200, f"w0-{sequence}")


async def test_the_id_of_an_event_is_valid_at_another_node(api: Client, bus: Bus, bus_server: Any) -> None:
    task = (await api("POST", f"{V}/workload/submit", json={"kind": "echo"}))[1]["id"]
    path = f"{V}/workload/{task}/events"
    async with api.session.get(api.url + path) as answer:
        lines = (await answer.content.readuntil(b"\n\n")).decode().splitlines()
    first = lines[1].removeprefix("id: ")
    assert lines[0] == "event: state" and first.startswith("1-")
    async with Mesh(bus=await bus_server.connect("other"), config=LOCAL) as mesh, bridge(OnBus(mesh)) as other:
        async with other.session.get(other.url + path, headers={"Last-Event-ID": first}) as answer:
            assert (await answer.content.readline()).startswith(b":"), "the event is not sent again"
            assert (await other("DELETE", f"{V}/workload/{task}"))[0] == 200
            rest = (await answer.content.read()).decode()
        assert "event: state" not in rest and "event: end\nid: 2-" in rest


async def test_the_header_idempotency_key_makes_one_task_of_two_submissions(api: Client) -> None:
    async def submit(header: str, **body: Any) -> tuple[int, Any]:
        headers = {"Idempotency-Key": header}
        return (await api("POST", f"{V}/workload/submit", json={"kind": "echo"} | body, headers=headers))[:2]

    status, first = await submit("order 7")
    assert (status, first["duplicate"]) == (202, False)
    for header, body in (("order 7", {}), ('"order 7"', {}), ("order 7", {"idempotency_key": "order 7"})):
        status, again = await submit(header, **body)
        assert (status, again["id"], again["duplicate"]) == (202, first["id"], True)
    in_body = {"kind": "echo", "idempotency_key": "order 7"}
    assert (await api("POST", f"{V}/workload/submit", json=in_body))[1]["id"] == first["id"]
    for body in ({"payload": {"value": 2}}, {"kind": "crypto_mining", "payload": {"nonce_count": 10}}):
        status, answer = await submit("order 7", **body)
        assert (status, answer["error"]["code"]) == (409, "conflict") and first["id"] in answer["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        (["a", "b"], {}, "Idempotency-Key"),
        (["a"], {"idempotency_key": "b"}, "Idempotency-Key"),
        ([""], {}, "Idempotency-Key"),
        (['""'], {}, "Idempotency-Key"),
        (["a" * 256], {}, "idempotency_key"),
        (["a"], {"idempotency_key": 5}, "idempotency_key"),
    ],
)
async def test_an_invalid_idempotency_key_is_refused(api: Client, headers: list[str], body: Any, field: str) -> None:
    sent = [("Idempotency-Key", header) for header in headers]
    status, answer, _ = await api("POST", f"{V}/workload/submit", json={"kind": "echo"} | body, headers=sent)
    assert (status, fields(answer)) == (400, {field})
