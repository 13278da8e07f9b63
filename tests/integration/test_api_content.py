"""Bytes and large answers over HTTP: parts, entity tags, names, deletion, gzip; and lists in pages."""

from __future__ import annotations

import asyncio

import pytest

from mesh.errors import Conflict
from mesh.messages import BlobRef, Raw, encode
from mesh.tasks.dead_letters import DEFAULT_LIMIT
from tests.integration.api_harness import Client, Memory, V, fields, submit

DATA = bytes(range(256)) * 1000


async def paths_of_bytes(api: Client, memory: Memory) -> list[str]:
    """The same bytes as a blob, as a result in a blob, and as a result in its record."""
    status, blob, _ = await api("POST", f"{V}/blobs", data=DATA, headers={"Content-Type": "image/png"})
    assert status == 201
    large, small = await submit(api), await submit(api)
    memory.finish(large, result_ref=BlobRef(blob["blob"]), content_type="image/png")
    memory.finish(small, result=Raw(encode(DATA)), content_type="image/png")
    return [f"{V}/blobs/{blob['blob']}", f"{V}/workload/{large}/result", f"{V}/workload/{small}/result"]


async def test_a_part_of_the_bytes_and_nothing_of_what_is_known(api: Client, memory: Memory) -> None:
    for path in await paths_of_bytes(api, memory):
        status, body, headers = await api("GET", path)
        assert (status, body, headers["Accept-Ranges"]) == (200, DATA, "bytes"), path
        assert (
            headers["Content-Disposition"].startswith('inline; filename="') and ".png" in headers["Content-Disposition"]
        )
        tag = headers["ETag"]
        for asked, part in (
            ("bytes=0-0", DATA[:1]), ("bytes=100000-150000", DATA[100_000:150_001]), ("bytes=-5", DATA[-5:]),
            ("bytes=255999-999999", DATA[-1:]),
        ):  # fmt: skip
            status, body, headers = await api("GET", path, headers={"Range": asked, "If-Range": tag})
            assert (status, body) == (206, part), asked
            first, last = DATA.rindex(part) if part == DATA[-5:] else 0, len(DATA) - 1
            assert headers["Content-Range"].endswith(f"/{len(DATA)}") and headers["Content-Length"] == str(len(part))
            assert part != DATA[-5:] or headers["Content-Range"] == f"bytes {first}-{last}/{len(DATA)}"
        status, answer, headers = await api("GET", path, headers={"Range": "bytes=256000-"})
        assert (status, answer["error"]["code"], headers["Content-Range"]) == (416, "no_such_range", "bytes */256000")
        status, body, _ = await api("GET", path, headers={"Range": "bytes=0-0", "If-Range": '"another"'})
        assert (status, body) == (200, DATA)
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            status, body, headers = await api("GET", path, headers={"If-None-Match": known})
            assert (status, body, headers["ETag"]) == (304, b"", tag)
        status, body, headers = await api("HEAD", path, headers={"Range": "bytes=0-0"})
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(DATA)))


async def test_a_blob_is_deleted_unless_a_task_needs_it(api: Client, memory: Memory) -> None:
    blob = (await paths_of_bytes(api, memory))[0]
    memory.refuse = Conflict("the task c1-1 needs it")
    status, answer, _ = await api("DELETE", blob)
    assert (status, answer["error"]["code"]) == (409, "conflict")
    memory.refuse = None
    assert (await api("DELETE", blob))[:2] == (204, b"")
    assert (await api("DELETE", blob))[0] == (await api("GET", blob))[0] == 404


async def test_large_json_is_compressed_and_only_that(api: Client, memory: Memory) -> None:
    tasks = [await submit(api) for _ in range(2)]
    memory.finish(tasks[0], result=Raw(encode(["x" * 50_000])))
    memory.finish(tasks[1], result=Raw(encode(["x"])))

    async def fetch(path: str, accepted: str = "gzip") -> tuple[str, int]:
        async with api.session.get(api.url + path, headers={"Accept-Encoding": accepted}) as answer:
            await answer.read()
            return answer.headers.get("Content-Encoding", ""), int(answer.headers.get("Content-Length", -1))

    large = f"{V}/workload/{tasks[0]}/result"
    encoding, length = await fetch(large)
    assert encoding == "gzip" and length < 1000
    assert (await api("GET", large))[1] == ["x" * 50_000]
    assert await fetch(large, "identity") == ("", 50_005)
    assert await fetch(f"{V}/workload/{tasks[1]}/result") == ("", 6)
    blob = (await paths_of_bytes(api, memory))[0]
    assert await fetch(blob) == ("", len(DATA))
    assert (await fetch(f"{V}/workload/{tasks[0]}/events"))[0] == ""
    async with api.session.head(api.url + large, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip" and answer.headers["Vary"] == "Accept-Encoding"


async def test_tasks_come_in_pages_with_their_links(api: Client, memory: Memory) -> None:
    tasks = [await submit(api) for _ in range(3)]
    status, answer, _ = await api("GET", f"{V}/workloads/tasks?limit=2")
    assert status == 200 and [task["id"] for task in answer["tasks"]] == tasks[:2] and answer["next"] == "q1"
    assert answer["tasks"][0]["links"]["status"] == f"{V}/workload/{tasks[0]}/status"
    status, answer, _ = await api("GET", f"{V}/workloads/tasks")
    assert len(answer["tasks"]) == 3 and answer["next"] is None
    status, answer, _ = await api("GET", f"{V}/dead?limit=1&kind=echo")
    assert status == 200 and len(answer["dead"]) == 1 and memory.dead_asked == ("echo", 1, "")
    status, answer, _ = await api("GET", f"{V}/dead?after={answer['next']}")
    assert answer["next"] is None and memory.dead_asked == ("", DEFAULT_LIMIT, "7")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("stat=failed", {"stat"}), ("state=stuck", {"state"}), ("limit=0&min_age=x", {"limit", "min_age"}),
        ("limit=501", {"limit"}), ("limit=" + "9" * 5000, {"limit"}), ("after=nowhere", {"after"}),
        ("kind=a.b", {"kind"}), ("kind=a&kind=b", {"kind"}), ("min_age=-1", {"min_age"}), ("min_age=inf", {"min_age"}),
    ],
)  # fmt: skip
async def test_a_filter_that_is_not_valid_is_refused_by_name(api: Client, query: str, named: set[str]) -> None:
    status, answer, _ = await api("GET", f"{V}/workloads/tasks?{query}")
    assert status == 400 and fields(answer) == named


async def test_a_mistyped_parameter_of_the_dead_letters_is_refused_too(api: Client) -> None:
    status, answer, _ = await api("GET", f"{V}/dead?knd=echo&limit=0")
    assert status == 400 and fields(answer) == {"knd", "limit"}
    assert "kind" in answer["error"]["message"]


async def test_large_answers_at_the_same_time_are_whole(api: Client, memory: Memory) -> None:
    task = await submit(api)
    memory.finish(task, result=Raw(encode([f"{n}" for n in range(60_000)])))
    answers = await asyncio.gather(*(api("GET", f"{V}/workload/{task}/result") for _ in range(8)))
    assert all(len(body) == 60_000 for _, body, _ in answers)
