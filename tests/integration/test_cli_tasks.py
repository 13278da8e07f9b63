"""`queztl submit`, `status`, `result`, `watch`, `cancel`, `dead` with a real node: documents, text, exit codes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.client import Mesh
from tests.integration.queztl_process import Ran, queztl, start
from tests.nodes import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory):
    """The API of one node with fault kinds."""
    async with Cluster(tmp_path_factory.mktemp("cli")) as cluster:
        yield (await cluster.node().start()).api
        cluster.print_logs()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(url: str):
    """A client of the same mesh, to check what the command did."""
    async with Mesh(url) as made:
        yield made


def one_line(ran: Ran) -> str:
    """Check that stderr has one sentence and stdout nothing; returns the sentence."""
    assert ran.out == "" and ran.err.startswith("queztl: ") and ran.err.count("\n") == 1, ran
    return ran.err


async def test_submit_prints_the_id_or_waits_for_the_result(url: str, mesh: Mesh) -> None:
    ran = await queztl("submit", "ECHO", '{"value": "ü"}', url=url)
    assert ran.code == 0 and ran.err == ""
    assert await mesh.result(ran.out.strip(), 30) == {"value": "ü"}
    ran = await queztl("submit", "echo", "-", "--wait", "--quiet", url=url, text='{"value": [1, null]}')
    assert (ran.code, ran.json, ran.err) == (0, {"value": [1, None]}, "")
    ran = await queztl("--json", "submit", "echo", '{"value": 2}', "--wait", "--urgency", "high", url=url)
    document = ran.json
    assert (document["state"], document["result"], document["attempt"]) == ("done", {"value": 2}, 1)
    ran = await queztl("submit", "echo", '{"value": 2}', "--json", url=url)
    assert set(ran.json) == {"id", "kind", "state", "duplicate", "warnings"} and ran.json["state"] == "queued"
    assert ran.json["warnings"] == []


async def test_the_url_of_the_bus_is_an_address_too(url: str, mesh: Mesh) -> None:
    bus = (await queztl("bus", "--json", url=url)).json["bus"]["urls"][0]
    ran = await queztl("submit", "echo", '{"value": 3}', "--wait", "--json", "--url", bus)
    assert ran.json["result"] == {"value": 3}


async def test_results_of_bytes(url: str, tmp_path: Path) -> None:
    """Written to a pipe or to a file; a result of 300,000 bytes is stored as a blob."""
    arguments = ("submit", "echo", '{"size_bytes": 300000, "seed": 5}', "--wait")
    ran = await queztl(*arguments, "-o", tmp_path / "made", url=url)
    assert ran.code == 0 and "300000 bytes" in ran.err
    made = (tmp_path / "made").read_bytes()
    assert len(made) == 300_000 and list(tmp_path.iterdir()) == [tmp_path / "made"]
    ran = await queztl(*arguments, "-o", tmp_path / "again", "--json", url=url)
    assert ran.json["size"] == 300_000 and ran.json["file"] == str(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == made
    process = await start("result", ran.json["id"], url=url)
    assert (await process.communicate())[0] == made and process.returncode == 0
    (tmp_path / "mine").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("mine")
    again = ("result", ran.json["id"], "-o")
    for arguments in ((*again, "mine"), (*again, "link"), ("blobs", "get", "b-none", "-o", "mine")):
        refused = await queztl(*arguments, url=url, cwd=tmp_path)
        assert refused.code == 2 and "exists already; --force replaces it" in refused.err, refused
    given = ("submit", "echo", "{}", "--file", "data=mine", "--wait", "--force", "-o", "link")
    refused = await queztl(*given, url=url, cwd=tmp_path)
    assert refused.code == 2 and "it is the input" in refused.err, refused
    assert (tmp_path / "mine").read_bytes() == b"precious"
    assert (await queztl(*again, "link", "--force", url=url, cwd=tmp_path)).code == 0
    assert (tmp_path / "mine").read_bytes() == made and (tmp_path / "link").is_symlink()


async def test_files_are_sent_as_blobs(url: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"x" * 200_000)
    ran = await queztl("submit", "echo", "--file", f"data={tmp_path / 'data.bin'}", "--wait", "--json", url=url)
    assert ran.json["result"]["data_bytes"] == 200_000
    ran = await queztl("submit", "echo", "--file", f"data={tmp_path / 'none'}", "--within", "3", url=url)
    assert ran.code == 2
    assert ran.err.splitlines()[1:] == [
        "  --within: needs --wait", f"  --file data: there is no file {tmp_path / 'none'}"
    ]  # fmt: skip


async def test_the_same_key_is_the_same_task(url: str) -> None:
    first = await queztl("submit", "echo", '{"value": 1}', "--key", "once", "--json", url=url)
    again = await queztl("submit", "echo", '{"value": 1}', "--key", "once", "--json", url=url)
    assert again.json["id"] == first.json["id"]
    assert (first.json["duplicate"], again.json["duplicate"]) == (False, True)
    other = await queztl("submit", "echo", '{"value": 2}', "--key", "once", url=url)
    assert other.code == 2 and first.json["id"] in one_line(other)


async def test_a_task_that_fails_has_an_exit_code_and_a_reason(url: str) -> None:
    arguments = ("submit", "echo", '{"fail": "on order"}', "--attempts", "1", "--wait")
    ran = await queztl(*arguments, "--quiet", url=url)
    assert ran.code == 1 and "failed" in one_line(ran) and "on order" in ran.err
    ran = await queztl(*arguments, "--json", url=url)
    error = ran.json["error"]
    assert (ran.code, error["exit_code"], error["code"], error["state"]) == (1, 1, "task_failed", "failed")
    assert "on order" in error["reason"]
    for command in (("result",), ("watch", "--json")):
        shown = await queztl(*command, error["id"], url=url)
        assert shown.code == 1 and "on order" in shown.out + shown.err


async def test_a_running_task(url: str, mesh: Mesh) -> None:
    """Status, result without a wait, a wait that is too short, watch until the task is cancelled, cancel twice."""
    handle = await mesh.start("echo", {"sleep_s": 600, "value": "long"})
    async for view in mesh.watch(handle.id):
        if view.state == "running":
            break
    status = (await queztl("status", handle.id, "--json", url=url)).json
    assert (status["id"], status["state"], status["node"]) == (handle.id, "running", view.node)
    shown = await queztl("status", handle.id, url=url)
    assert re.search(r"^state +running$", shown.out, re.MULTILINE)
    for within in ("0", "0.2"):
        ran = await queztl("result", handle.id, "--within", within, url=url)
        assert ran.code == 5 and "it goes on" in one_line(ran)

    watching = await start("watch", handle.id, "--json", url=url)
    assert watching.stdout is not None
    first = json.loads(await watching.stdout.readline())
    assert first["state"] == "running"
    cancelled = await queztl("cancel", handle.id, "--json", url=url)
    assert (cancelled.code, cancelled.json["state"]) == (0, "cancelled")
    rest = (await asyncio.wait_for(watching.communicate(), 20))[0].decode().splitlines()
    assert json.loads(rest[-1])["state"] == "cancelled" and watching.returncode == 1
    again = await queztl("cancel", handle.id, url=url)
    assert (again.code, again.out) == (0, f"{handle.id} cancelled\n")
    late = await queztl("result", handle.id, url=url)
    assert late.code == 1 and "cancelled" in one_line(late)


async def test_cancel_does_not_change_an_ended_task(url: str) -> None:
    done = (await queztl("submit", "echo", "--wait", "--json", url=url)).json
    ran = await queztl("cancel", done["id"], url=url)
    assert (ran.code, ran.out) == (0, f"{done['id']} done before it could be cancelled\n")


async def test_status_names_requirements_that_no_node_meets(url: str) -> None:
    ran = await queztl("submit", "echo", "--requires", '{"labels": {"metal": "gold"}}', url=url)
    task = ran.out.strip()
    assert ran.code == 0 and "can run this task (1 of 1 node: has no label metal=gold)" in one_line_of_notes(ran)
    shown = await queztl("status", task, url=url)
    assert "metal=gold" in shown.out and "no node now in the mesh can ever run it" in shown.out
    assert (await queztl("cancel", task, url=url)).code == 0


def one_line_of_notes(ran: Ran) -> str:
    """The only line on stderr."""
    assert ran.err.count("\n") == 1, ran
    return ran.err


async def test_result_says_what_the_task_waits_for(url: str) -> None:
    """It waited in silence, for ever. Requirements of each sort: memory, labels, another node, a region."""
    requires = '{"memory_mb": 999999999, "labels": {"a": "b"}, "node": "nobody", "region": "moon"}'
    submit = ("submit", "echo", "--requires", requires, "--quiet")
    later = (await queztl(*submit, "--delay", "600", url=url)).out.strip()
    shown = (await queztl("status", later, url=url)).out
    assert "waits for its time" in shown and "is not in region moon" in shown, "it is known before its time"
    assert (await queztl("cancel", later, url=url)).code == 0
    task = (await queztl(*submit, url=url)).out.strip()
    ran = await queztl("result", task, "--within", "2", url=url)
    assert ran.code == 5 and f"task {task} waits: " in ran.err
    assert "no node now in the mesh can ever run it" in (await queztl("tasks", url=url)).out
    for lack in ("MB of memory", "has no label a=b", "is not the node nobody", "is not in region moon", "can ever run"):
        assert lack in ran.err
    assert (await queztl("cancel", task, url=url)).code == 0


async def test_tasks_lists_what_there_is_in_80_columns(url: str, mesh: Mesh) -> None:
    handle = await mesh.start("echo", {"sleep_s": 600})
    async for view in mesh.watch(handle.id):
        if view.state == "running":
            break
    await queztl("submit", "echo", '{"fail": "on order"}', "--attempts", "1", "--wait", url=url)
    document = (await queztl("tasks", "--state", "running", "--json", url=url)).json
    assert [task["id"] for task in document["tasks"]] == [handle.id] and document["next"] is None
    assert document["tasks"][0]["node"] == view.node
    ran = await queztl("tasks", "--state", "failed", "--kind", "echo", url=url)
    assert "on order" in ran.out and handle.id not in ran.out
    ran = await queztl("tasks", "--limit", "1", url=url)
    cursor = re.search(r"--after (\w+)", ran.err)
    assert handle.id in ran.out and cursor, "those that run come first"
    rest = (await queztl("tasks", "--after", cursor[1], "--all", "--json", url=url)).json["tasks"]
    assert rest and handle.id not in {task["id"] for task in rest}
    assert (await queztl("tasks", "--after", "x", url=url)).code == 2
    await mesh.cancel(handle.id)


async def test_dead_letters(url: str, mesh: Mesh) -> None:
    """List, show, replay one, replay all."""
    payload = {"fail": "dies", "value": {"n": 1}}
    ended = [await (await mesh.start("echo", payload, max_attempts=1)).end(30) for _ in range(2)]
    listed = (await queztl("dead", "list", "--json", url=url)).json["dead"]
    assert {end.id for end in ended} <= {letter["id"] for letter in listed}
    mine = next(letter for letter in listed if letter["id"] == ended[0].id)
    assert (mine["kind"], mine["attempts"]) == ("echo", 1) and "dies" in mine["reason"] and "payload" not in mine
    assert (await queztl("dead", "list", "--kind", "crypto_mining", "--json", url=url)).json["dead"] == []
    table = await queztl("dead", "list", url=url)
    assert re.search(rf"^{ended[0].id} .*dies", table.out, re.MULTILINE)
    shown = await queztl("dead", "show", ended[0].id, "--json", url=url)
    assert shown.json["payload"] == payload
    assert '"fail": "dies"' in (await queztl("dead", "show", ended[0].id, url=url)).out

    replayed = (await queztl("dead", "replay", ended[0].id, "--json", url=url)).json["replayed"]
    assert [replay["dead"] for replay in replayed] == [ended[0].id]
    again = await mesh.wait(replayed[0]["id"], 30)
    assert again.state == "failed" and again.id != ended[0].id
    gone = await queztl("dead", "show", ended[0].id, url=url)
    assert gone.code == 4 and "queztl dead list" in one_line(gone)
    every = (await queztl("dead", "replay", "--all", "--json", url=url)).json["replayed"]
    assert {ended[1].id, again.id} <= {replay["dead"] for replay in every}
    for replay in every:
        await mesh.wait(replay["id"], 30)
    assert (await queztl("dead", "replay", url=url)).code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("submit", "telepathy"), 2, "the kinds are echo, crypto_mining"),
        (("submit", "telepathy", "--wait"), 2, "There is no kind 'telepathy'"),
        (("status", "nonsense"), 4, "is not a task id"),
        (("status", "c0ffee-1"), 4, "there is no task c0ffee-1"),
        (("status", "999999"), 4, "there is no task 999999"),
        (("result", "c0ffee-1"), 4, "there is no task c0ffee-1"),
        (("watch", "c0ffee-1"), 4, "there is no task c0ffee-1"),
        (("cancel", "c0ffee-1"), 4, "there is no task c0ffee-1"),
        (("dead", "show", "a b"), 4, "there is no dead letter a b"),
        (("dead", "replay", "c0ffee-1"), 4, "there is no dead letter c0ffee-1"),
        (("blobs", "get", "b-none", "-o", "x"), 4, "there is no blob b-none"),
        (("blobs", "get", "> *", "-o", "x"), 4, "there is no blob"),
        (("result", "c0ffee-1", "-o", "/no/folder/x"), 2, "there is no folder /no/folder"),
        (("map", "telepathy", ".", "--out", "out"), 2, "There is no kind 'telepathy'"),
        (("map", "crypto_mining", ".", "--out", "out"), 2, "takes no files"),
        (("map", "echo", ".", "--field", "value", "--out", "out"), 2, "takes files in data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_an_unknown_name_is_one_sentence(
    url: str, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """On stderr for people, and also as a document for programs."""
    ran = await queztl(*arguments, "--json", url=url, cwd=tmp_path)
    assert ran.code == code and ran.json["error"]["exit_code"] == code
    assert message in ran.json["error"]["message"]
    assert message in ran.err and ran.err.startswith("queztl: ") and ran.err.count("\n") == 1, ran


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (("submit", "echo", '{"value": '), {"payload"}),
        (("submit", "echo", "[1]"), {"payload"}),
        (
            ("submit", "echo", '{"sleep_s": "x", "seed": -1, "colour": 1}', "--requires", '{"core": 1}'),
            {"payload.sleep_s", "payload.seed", "payload.colour", "requires.core"},
        ),
        (("submit", "echo", "--requires", "[]"), {"requires"}),
        (("map", "image_processing", "none.jpg", "nor.png", "--out", "out"), {"none.jpg", "nor.png"}),
        (("map", "image_processing", ".", "--payload", '{"width": 0}', "--out", "out"), {"payload.width"}),
        (("blobs", "put", "none.jpg"), {"none.jpg"}),
        (("dead", "list", "--kind", "a b"), {"kind"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_every_wrong_field_is_named_on_a_line_of_its_own(
    url: str, tmp_path: Path, arguments: tuple[str, ...], faults: set[str]
) -> None:
    ran = await queztl(*arguments, "--json", url=url, cwd=tmp_path)
    first, *listed = ran.err.splitlines()
    assert ran.code == 2 and first.startswith("queztl: ")
    assert {line.strip().partition(": ")[0] for line in listed} == faults, ran.err
    assert {fault["field"] for fault in ran.json["error"]["faults"]} == faults
    assert not (tmp_path / "out").exists()
