"""The bridge on real sockets: status codes, documents, streams. The client checks every answer against OpenAPI."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from openapi_spec_validator import validate as validate_openapi

from api.routes import ROUTE_TABLE
from mesh.bus.errors import api_error
from mesh.errors import Busy, Conflict, StorageFull
from mesh.messages import BlobRef, Raw, TaskError, encode
from tests.integration.api_harness import Client, Memory, V, fields, submit


async def test_the_document_is_valid_openapi_and_lists_exactly_the_routes(api: Client) -> None:
    validate_openapi(api.document)
    listed = {(m.upper(), path) for path, methods in api.document["paths"].items() for m in methods}
    assert listed == {(route.method, route.full_path) for route in ROUTE_TABLE}
    names = [operation["operationId"] for methods in api.document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
async def test_the_documented_curl_lines_work(api: Client) -> None:
    async def curl(*arguments: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--noproxy", "*", *arguments, stdout=asyncio.subprocess.PIPE
        )
        return json.loads((await process.communicate())[0])

    body = '{"workload_type":"crypto_mining","payload":{"algorithm":"SHA256"}}'
    local = f"http://localhost:{api.port}{V}"
    answer = await curl("-4", "-X", "POST", f"{local}/workload/submit", "-d", body)
    assert answer["state"] == "queued" and answer["links"]["status"] == f"{V}/workload/{answer['id']}/status"
    assert (await curl("-4", f"{local}/network/status"))["registry"]["total_nodes"] == 1


async def test_a_task_from_submit_to_result(api: Client, memory: Memory) -> None:
    task = await submit(api, payload={"value": 1}, urgency="high", requires={"cores": 2})
    status, answer, _ = await api("GET", f"{V}/workload/{task}/status")
    assert (status, answer["state"], answer["ended_at"]) == (200, "queued", None) and "result" not in answer
    status, answer, headers = await api("GET", f"{V}/workload/{task}/result")
    assert (status, answer["error"]["code"], answer["state"]) == (409, "not_ended", "queued")
    assert int(headers["Retry-After"]) >= 1
    memory.finish(task, result=Raw(encode({"value": 1})))
    _, answer, _ = await api("GET", f"{V}/workload/{task}/status")
    assert answer["result"] == {"value": 1} and answer["ended_at"].endswith("Z")
    assert (await api("GET", f"{V}/workload/{task}/result"))[:2] == (200, {"value": 1})
    assert (await api("GET", f"{V}/workload/1/result"))[:2] == (200, {"value": 1}), "a sequence number of the ingress"
    status, body, _ = await api("GET", f"{V}/workload/{task}/result", headers={"Accept": "application/msgpack"})
    assert status == 200 and msgspec.msgpack.decode(body) == {"value": 1}
    assert (await api("DELETE", f"{V}/workload/{task}"))[1]["state"] == "done", "an ended task stays ended"


async def test_results_that_are_bytes_large_odd_or_absent(api: Client, memory: Memory) -> None:
    tasks = [await submit(api) for _ in range(6)]
    memory.finish(tasks[0], result=Raw(encode(b"\x89PNG")), content_type="image/png", info={"width": 1})
    status, body, headers = await api("GET", f"{V}/workload/{tasks[0]}/result")
    assert (status, body, headers["Content-Type"]) == (200, b"\x89PNG", "image/png")
    assert (await api("GET", f"{V}/workload/{tasks[0]}/status"))[1]["info"] == {"width": 1}
    large = bytes(range(256)) * 2000
    memory.blobs["b-t1"] = BlobRef("b-t1", len(large), "text/html"), large
    memory.finish(tasks[1], result_ref=BlobRef("b-t1"), content_type="text/html")
    _, body, headers = await api("GET", f"{V}/workload/{tasks[1]}/result")
    assert body == large and "sandbox" in headers["Content-Security-Policy"]
    memory.blobs["b-t2"] = BlobRef("b-t2", 0), encode(["x" * 200_000])
    memory.finish(tasks[2], result_ref=BlobRef("b-t2"))
    assert (await api("GET", f"{V}/workload/{tasks[2]}/result"))[1] == ["x" * 200_000]
    memory.finish(tasks[3], result=Raw(b"\x81\x91\x01\x02"))  # {[1]: 2} has no JSON form
    assert (await api("GET", f"{V}/workload/{tasks[3]}/result"))[0] == 406
    assert (await api("GET", f"{V}/workload/{tasks[3]}/status"))[0] == 200
    error = TaskError("bad_image", "No image.", (("payload.image", "is none"),))
    memory.finish(tasks[4], state="failed", error=error)
    status, answer, headers = await api("GET", f"{V}/workload/{tasks[4]}/result")
    assert (status, answer["error"]["code"], answer["state"]) == (409, "bad_image", "failed")
    assert fields(answer) == {"payload.image"} and "Retry-After" not in headers
    assert (await api("DELETE", f"{V}/workload/{tasks[5]}"))[1]["state"] == "cancelled"
    assert (await api("GET", f"{V}/workload/{tasks[5]}/result"))[1]["error"]["code"] == "cancelled"


async def test_waiting_for_the_end(api: Client, memory: Memory) -> None:
    path = f"{V}/workload/submit?wait="
    call = asyncio.create_task(api("POST", f"{path}30", json={"kind": "ECHO"}))
    await memory.accepted.wait()
    memory.finish("c1-1", result=Raw(encode(7)))
    status, answer, _ = await call
    assert (status, answer["state"], answer["result"]) == (200, "done", 7)
    memory.changed.clear()
    assert (await api("POST", f"{path}0.01", json={"kind": "echo"}))[0] == 202
    for wrong in ("61", "-1", "nan", "x"):
        status, answer, _ = await api("POST", path + wrong, json={"kind": "echo", "colour": 1})
        assert status == 400 and fields(answer) == {"wait", "colour"}


async def test_every_fault_is_named_at_once(api: Client) -> None:
    body = {
        "workload_type": "image_processing", "urgency": "now", "timeout_s": -1, "colour": "red",
        "requires": {"cores": 0, "wings": 2}, "max_attempts": "x", "payload": {"image": 1, "wrong": 2},
    }  # fmt: skip
    status, answer, _ = await api("POST", f"{V}/workload/submit", json=body)
    assert status == 400 and answer["error"]["code"] == "bad_input"
    assert {"urgency", "timeout_s", "colour", "requires.cores", "requires.wings", "max_attempts"} <= fields(answer)
    assert {"payload.image", "payload.wrong"} <= fields(answer)
    status, answer, _ = await api("POST", f"{V}/workload/submit", json={"workload_type": "baking"})
    assert status == 400 and answer["error"]["code"] == "unknown_kind" and "echo" in answer["error"]["message"]


async def test_no_attempts_at_all_are_refused(api: Client, memory: Memory) -> None:
    for attempts in (0, -1, 101, True):
        status, answer, _ = await api("POST", f"{V}/workload/submit", json={"kind": "echo", "max_attempts": attempts})
        assert (status, fields(answer)) == (400, {"max_attempts"}) and "from 1 to 100" in answer["error"]["message"]
    assert not memory.views
    await submit(api, max_attempts=None)
    schema = api.document["components"]["schemas"]["SubmitBody"]["properties"]["max_attempts"]
    assert {"type": "integer", "minimum": 1, "maximum": 100} in schema["anyOf"], schema


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("Queztl-Urgency", "give urgency in the body"), ("queztl-urgancy", "give urgency in the body"),
        ("Queztl-Timeout-S", "give timeout_s in the body"), ("Quetzal-Attempts", "give max_attempts in the body"),
        ("Queztl-Idempotency-Key", "give idempotency_key in the body"),
        ("X-Idempotency-Key", "the nearest is Idempotency-Key"), ("Idempotence-Key", "the nearest is Idempotency-Key"),
    ],
)  # fmt: skip
async def test_a_header_that_would_be_ignored_is_refused(api: Client, memory: Memory, header: str, says: str) -> None:
    status, answer, _ = await api("POST", f"{V}/workload/submit", json={"kind": "echo"}, headers={header: "1"})
    assert (status, fields(answer)) == (400, {header}) and says in answer["error"]["message"]
    assert not memory.views


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"workload_type": "echo",\n "payload": }', "line 2, column 13"),
        (b"", "empty"), (b"[1]", "object"), (b"\xff", "UTF-8"), (b'{"kind": NaN}', "NaN"),
        (b'{"kind": "echo", "timeout_s": 1e999}', "out of range"),
        (b'{"kind": "echo", "payload": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper"),
        (b'{"kind": "echo", "payload": ' + b"[" * 101 + b"]" * 101 + b"}", "nested deeper"),
        (b'{"kind": "echo", "kind": "echo"}', "more than once"),
        (b'{"kind": "echo", "payload": {"value": 99999999999999999999}}', "64 bits"),
        (b'{"kind": "echo", "payload": {"value": "\\ud800"}}', "not Unicode"),
    ],
)  # fmt: skip
async def test_bodies_that_are_no_json_object(api: Client, body: bytes, says: str) -> None:
    status, answer, _ = await api("POST", f"{V}/workload/submit", data=body)
    assert status == 400 and says in answer["error"]["message"] and fields(answer) == {"body"}


async def test_messagepack_bodies(api: Client) -> None:
    headers = {"Content-Type": "application/msgpack"}
    body = encode({"kind": "echo", "payload": {"data": b"\x00\x01"}})
    assert (await api("POST", f"{V}/workload/submit", data=body, headers=headers))[0] == 202
    status, answer, _ = await api("POST", f"{V}/workload/submit", data=b"\xc1", headers=headers)
    assert status == 400 and "MessagePack" in answer["error"]["message"]


async def test_the_answer_to_a_body_over_the_limit_names_blobs(api: Client) -> None:
    whole = b'{"kind":"echo","payload":{"value":"' + b"x" * (5 << 20) + b'"}}'
    for data in (io.BytesIO(whole), _pieces(b"[" * (1 << 20), 6)):
        status, answer, _ = await api("POST", f"{V}/workload/submit", data=data)
        assert status == 413 and "/api/v1.2/blobs" in answer["error"]["message"]


async def _pieces(piece: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece


_FULL_DISK = api_error({"code": 500, "err_code": 10012, "description": "mkdir /a/b/js: no space left on device"})


async def test_refusals_of_the_mesh_have_their_status(api: Client, memory: Memory) -> None:
    for error, status in ((Busy(retry_after_s=2.5), 503), (Conflict(), 409), (StorageFull(), 507), (_FULL_DISK, 507)):
        memory.refuse = error
        got, answer, headers = await api("POST", f"{V}/workload/submit", json={"kind": "echo"})
        assert (got, answer["error"]["code"]) == (status, error.code) and "/a/b" not in answer["error"]["message"]
        assert headers.get("Retry-After") == ("3" if status == 503 else None)


async def test_an_unexpected_error_has_an_id_and_no_traceback(
    api: Client, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    memory.refuse = ZeroDivisionError("secret")
    status, answer, headers = await api("POST", f"{V}/workload/submit", json={"kind": "echo"})
    assert (status, answer["error"]["code"]) == (500, "internal") and "secret" not in json.dumps(answer)
    assert answer["id"] == headers["X-Request-Id"] and answer["id"] in caplog.text


async def test_unknown_ids_and_paths_are_not_found(api: Client) -> None:
    for task in ("c1-77", "nonsense", "a.b-1", "*", "%3E", "c1-%C2%B2", "9" * 30, "x" * 900):
        for path in ("status", "result", "events"):
            status, answer, _ = await api("GET", f"{V}/workload/{task}/{path}")
            assert status == 404 and answer["error"]["code"] == "not_found"
        assert (await api("DELETE", f"{V}/workload/{task}"))[0] == 404
    assert (await api("GET", f"{V}/blobs/b-none"))[0] == 404 and (await api("GET", f"{V}/dead/c1-1"))[0] == 404
    status, answer, _ = await api("GET", "/nothing/here")
    assert status == 404 and answer["error"]["code"] == "not_found"
    status, answer, headers = await api("GET", f"{V}/workload/submit")
    assert (status, headers["Allow"]) == (405, "OPTIONS, POST") and answer["error"]["code"] == "unsupported"


async def test_head_is_answered_where_get_is(api: Client, memory: Memory) -> None:
    task, memory.blobs["b-t1"] = await submit(api), (BlobRef("b-t1", 3), b"abc")
    memory.changed.set()
    for path in (f"/workload/{task}/status", f"/workload/{task}/events", "/blobs/b-t1", "/workloads"):
        status, body, _ = await api("HEAD", V + path)
        assert (status, body) == (200, b"")
    assert len(memory.views) == 1


async def test_blobs_are_uploaded_and_downloaded_as_streams(api: Client, memory: Memory) -> None:
    status, answer, headers = await api("POST", f"{V}/blobs?keep=1", data=_pieces(b"\x01" * 700_000, 4))
    assert (status, answer["size"]) == (201, 2_800_000) and memory.largest_piece <= 256 * 1024
    assert answer["blob"].startswith("b-k") and headers["Location"] == f"{V}/blobs/{answer['blob']}"
    status, body, headers = await api("GET", f"{V}/blobs/{answer['blob']}")
    assert (status, body, headers["Content-Length"]) == (200, b"\x01" * 2_800_000, "2800000")
    form = aiohttp.FormData({"file": "x"}, default_to_multipart=True)
    assert (await api("POST", f"{V}/blobs", data=form))[0] == 415
    assert (await api("POST", f"{V}/blobs?keep=maybe", data=b"x"))[0] == 400
    assert (await api("POST", f"{V}/blobs", data=_pieces(b"x" * 1_000_000, 5)))[0] == 413
    memory.refuse = StorageFull()
    assert (await api("POST", f"{V}/blobs", data=b"x"))[0] == 507
    with pytest.raises(aiohttp.ClientPayloadError):  # the download is interrupted: the client must notice
        await api("GET", f"{V}/blobs/{answer['blob']}")


async def test_events_until_the_end(api: Client, memory: Memory) -> None:
    task = await submit(api)
    async with api.session.get(f"{api.url}{V}/workload/{task}/events") as answer:
        assert answer.content_type == "text/event-stream"
        text = b""
        while b": still here" not in text:
            text += await answer.content.readany()
        memory.finish(task, result=Raw(encode("ok")))
        text += await answer.content.read()
    found = events_in(text)
    assert [(name, event.partition("-")[0]) for name, event, _ in found] == [("state", "1"), ("end", "2")]
    assert found[1][2]["result"] == "ok"


def events_in(text: bytes) -> list[tuple[str, str, Any]]:
    """(name, id, data) of each event."""
    found = re.findall(r"event: (\w+)\n(?:id: (\S+)\n)?data: (.*)\n\n", text.decode())
    return [(name, event, json.loads(data)) for name, event, data in found]


async def test_a_reader_that_comes_back_gets_only_what_it_has_not_seen(api: Client, memory: Memory) -> None:
    task = await submit(api)
    path = f"{api.url}{V}/workload/{task}/events"
    async with api.session.get(path) as answer:
        first = events_in(await answer.content.readuntil(b"\n\n"))[0][1]
    # The connection is lost, and no event occurs until the reader is back.
    async with api.session.get(path, headers={"Last-Event-ID": first}) as answer:
        assert await answer.content.readuntil(b"\n\n") == b": still here\n\n"
        memory.finish(task)
        text = await answer.content.read()
    [(name, last, _)] = events_in(text)
    assert (name, last.partition("-")[0]) == ("end", "2")
    # An event that occurs while the reader is away is sent when it is back, with the next number.
    status, text, _ = await api("GET", path.removeprefix(api.url), headers={"Last-Event-ID": first})
    assert (status, [(name, event) for name, event, _ in events_in(text)]) == (200, [("end", last)])
    assert (await api("GET", path.removeprefix(api.url), headers={"Last-Event-ID": last}))[:2] == (204, b"")


@pytest.mark.parametrize("header", ["", "0", "1", "x", "1-", "-1", "9" * 5000, "1-zzzzzzzz", "\u0661-00000000"])
async def test_an_invalid_event_id_gets_the_stream_from_now_on(api: Client, memory: Memory, header: str) -> None:
    task = await submit(api)
    memory.finish(task)
    status, text, _ = await api("GET", f"{V}/workload/{task}/events", headers={"Last-Event-ID": header})
    assert (status, [(name, event[:2]) for name, event, _ in events_in(text)][:1]) == (200, [("end", "1-")])


async def test_dead_letters_kinds_registration_and_health(api: Client, memory: Memory) -> None:
    assert (await api("GET", f"{V}/dead?kind=echo"))[1]["dead"][0]["error"]["message"] == "It crashed."
    assert (await api("GET", f"{V}/dead/c1-9"))[1]["payload"] == {"value": 1}
    assert (await api("POST", f"{V}/dead/c1-9/replay"))[0] == 202
    kinds = {kind["kind"]: kind for kind in (await api("GET", f"{V}/workloads"))[1]["workloads"]}
    assert kinds["echo"]["nodes"][0]["available"] and kinds["echo"]["schema"]["properties"]["sleep_s"]
    status, answer, _ = await api("POST", f"{V}/nodes/register", data=b'{"name": "pi", "id": "n7", "new": 1}')
    assert (status, answer["id"], answer["bus"]["urls"]) == (200, "n7", ["nats://127.0.0.1:4222"])
    assert memory.registered == ("pi", {}, {}, "n7")
    wrong = {"labels": {"a": 1}, "capabilities": [], "id": "a.b"}
    status, answer, _ = await api("POST", f"{V}/nodes/register", json=wrong)
    assert status == 400 and fields(answer) == {"name", "labels.a", "capabilities", "id"}
    assert (await api("GET", f"{V}/readyz"))[:2] == (200, {"ready": True, "checks": {"bus": "ok"}})
    memory.is_ready = False
    assert (await api("GET", f"{V}/readyz"))[0] == 503 and (await api("GET", f"{V}/healthz"))[0] == 200


async def test_benchmarks_are_listed_run_and_stopped(api) -> None:
    status, listed, _ = await api("GET", f"{V}/benchmarks/realworld")
    names = [benchmark["name"] for benchmark in listed["benchmarks"]]
    assert status == 200 and len(names) == 8 and "llm_inference" in names
    by_name = {benchmark["name"]: benchmark for benchmark in listed["benchmarks"]}
    assert by_name["llm_inference"]["last"] == "never run"
    assert by_name["crypto_mining"]["last"]["figures"]["sha256d"]["median"] == 2.0
    status, begun, headers = await api("POST", f"{V}/benchmarks/realworld/run", json={"names": ["database_ops"]})
    assert status == 202 and begun["id"] == "r1" and headers["Location"] == begun["links"]["status"]
    status, begun, _ = await api("POST", f"{V}/benchmarks/realworld/run", data=b"{}")
    assert status == 202 and begun["names"] == names and not begun["quick"]
    status, run, _ = await api("GET", f"{V}/benchmarks/realworld/runs/r1")
    assert (status, run["state"], run["progress"]) == (200, "running", 0.5)
    assert (await api("DELETE", f"{V}/benchmarks/realworld/runs/r1"))[1]["state"] == "cancelled"
    assert (await api("GET", f"{V}/benchmarks/realworld/runs/r2"))[0] == 404
    wrong = {"names": ["sudoku"], "nodes": 3, "quick": "often", "more": 1}
    status, refused, _ = await api("POST", f"{V}/benchmarks/realworld/run", json=wrong)
    assert status == 400 and {"nodes.literal['all']", "quick", "more"} & fields(refused)
    status, refused, _ = await api("POST", f"{V}/benchmarks/realworld/run", json={"names": ["sudoku"]})
    assert status == 400 and fields(refused) == {"names"} and "none of llm_inference" in str(refused)
