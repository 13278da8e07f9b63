"""`SyncMesh` against a real node: what scripts do, from threads that have no loop, and how it ends."""

from __future__ import annotations

import concurrent.futures
import itertools
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.client import WorkloadType
from mesh.errors import BadInput, BusUnavailable, NotFound, TaskFailed, UnknownKind, WaitTimeout
from mesh.sync import SyncMesh
from mesh.task_states import FINAL
from tests.integration.queztl_process import environment
from tests.nodes import ROOT, Cluster, NodeProcess
from tests.ports import free_port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory):
    """One node."""
    async with Cluster(tmp_path_factory.mktemp("sync")) as cluster:
        yield await cluster.node().start()
        cluster.print_logs()


@pytest.fixture
def mesh(node: NodeProcess):
    """A connected client for one test, whose thread has no running loop."""
    with SyncMesh(node.api) as made:
        yield made


def ours() -> list[str]:
    """Threads of this module that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("queztl")]


def test_submit_start_status_result_cancel(mesh: SyncMesh) -> None:
    assert mesh.submit("echo", {"value": "ü"}) == {"value": "ü"}
    assert mesh.submit_workload(workload_type=WorkloadType.CRYPTO_MINING, payload={"block": "genesis"})["found"]
    made = mesh.submit("echo", {"size_bytes": 300_000, "seed": 4}, wait_s=30)
    assert isinstance(made, bytes) and len(made) == 300_000
    handle = mesh.start("echo", {"value": 1}, urgency="high")
    end = handle.end(30)
    assert (end.id, end.state, mesh.status(handle.id).state) == (handle.id, "done", "done")
    assert handle.result() == mesh.result(handle.id) == mesh.value(end) == {"value": 1}
    long = mesh.start("echo", {"sleep_s": 600})
    assert mesh.end(long.id) is None
    with pytest.raises(WaitTimeout):
        long.result(0.1)
    assert long.cancel().state == "cancelled" == mesh.cancel(long.id).state
    with pytest.raises(TaskFailed, match="cancelled"):
        long.result(5)
    assert [node.slots for node in mesh.nodes()] == [2]


def test_watch_until_the_end(mesh: SyncMesh) -> None:
    handle = mesh.start("echo", {"sleep_s": 0.5})
    views = list(mesh.watch(handle.id))
    assert views[-1].state == "done" and {view.id for view in views} == {handle.id}
    other = mesh.start("echo", {"sleep_s": 600})
    for view in mesh.watch(other.id):
        if view.state == "running":
            break  # a watch that is left leaves nothing behind: the mesh can be used on
    assert mesh.cancel(other.id).state == "cancelled"


def test_map_in_order_and_as_they_end(mesh: SyncMesh) -> None:
    items = list(mesh.map("echo", ({"value": number} for number in range(300)), window=32))
    assert [item.index for item in items] == list(range(300))
    assert [item.result["value"] for item in items] == list(range(300))
    payloads = [{"value": number, "sleep_s": 600.0 if number == 0 else 0.0} for number in range(12)]
    as_they_end = mesh.map("echo", payloads, ordered=False)
    ended = list(itertools.islice(as_they_end, 11))
    assert sorted(item.index for item in ended) == list(range(1, 12)), "the slow one must not hold up the others"
    [slow] = [task for task in mesh.tasks(kind="echo") if task.state not in FINAL]
    mesh.cancel(slow.id)
    [last] = as_they_end
    assert (last.index, last.task) == (0, slow.id) and isinstance(last.error, TaskFailed)
    mixed = list(mesh.map("echo", [{"value": 1}, {"sleep_s": "x"}, {"fail": "on order"}], max_attempts=1))
    assert [item.ok for item in mixed] == [True, False, False]
    assert isinstance(mixed[1].error, BadInput) and isinstance(mixed[2].error, TaskFailed)


def test_a_map_reads_no_more_than_its_window(mesh: SyncMesh) -> None:
    """Endless payloads, a reader that stops; payloads that use the mesh, payloads that raise."""
    counter = itertools.count()
    first = list(itertools.islice(mesh.map("echo", ({"value": next(counter)} for _ in itertools.count()), window=4), 6))
    assert [item.index for item in first] == list(range(6)) and next(counter) <= 6 + 4 + 1
    chained = mesh.map("echo", (mesh.submit("echo", {"value": number}) for number in range(3)))
    assert [item.result for item in chained] == [{"value": number} for number in range(3)]

    def breaks():
        yield {"value": 1}
        raise ZeroDivisionError("in the payloads")

    with pytest.raises(ZeroDivisionError):
        list(mesh.map("echo", breaks()))
    assert mesh.submit("echo") == {"value": None}


def test_blobs_and_dead_letters(mesh: SyncMesh, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"y" * 300_000)
    reference = mesh.put_blob(tmp_path / "up", "a/b")
    assert mesh.submit("echo", {"data": {"blob": reference.blob}})["data_bytes"] == 300_000
    assert mesh.get_blob(reference.blob) == b"y" * 300_000
    assert mesh.save_blob(reference.blob, tmp_path / "down") == reference
    assert (tmp_path / "down").read_bytes() == b"y" * 300_000
    with pytest.raises(NotFound):
        mesh.get_blob("b-none")
    end = mesh.start("echo", {"fail": "dies"}, max_attempts=1).end(30)
    assert end.id in {letter.task.id for letter in mesh.dead_list("echo")}
    assert mesh.dead_show(end.id).end == end
    again = mesh.dead_replay(end.id)
    assert mesh.wait(again.id, 30).state == "failed"
    with pytest.raises(NotFound):
        mesh.dead_show(end.id)


def test_errors_are_those_of_mesh(mesh: SyncMesh) -> None:
    with pytest.raises(UnknownKind):
        mesh.submit("telepathy")
    with pytest.raises(BadInput) as caught:
        mesh.submit("echo", {"sleep_s": -1, "colour": "red"}, timeout_s=-1)
    assert {fault.field for fault in caught.value.faults} == {"payload.sleep_s", "payload.colour", "timeout_s"}
    for look in (mesh.status, mesh.cancel, mesh.result, lambda task: list(mesh.watch(task))):
        with pytest.raises(NotFound):
            look("c0ffee-1")


def test_any_number_of_threads(mesh: SyncMesh) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: mesh.submit("echo", {"value": number})["value"], range(80)))
    assert results == list(range(80))


def test_an_exception_in_the_body_closes_it_and_is_the_one_that_is_seen(node: NodeProcess) -> None:
    with pytest.raises(ZeroDivisionError), SyncMesh(node.api) as mesh:
        mesh.start("echo", {"sleep_s": 0.01})
        raise ZeroDivisionError
    assert ours() == []
    with pytest.raises(RuntimeError, match="with SyncMesh"):
        mesh.submit("echo")


def test_closing_ends_the_calls_of_other_threads(node: NodeProcess) -> None:
    mesh = SyncMesh(node.api)
    mesh.connect()
    mesh.connect()
    task = mesh.start("echo", {"sleep_s": 600})
    views = mesh.watch(task.id)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mesh.wait, task.id)
        next(views)
        mesh.close()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(10)
    mesh.close()
    assert ours() == []
    with SyncMesh(node.api) as again:
        assert again.cancel(task.id).state == "cancelled"


def test_where_no_node_runs_nothing_is_left() -> None:
    for scheme in ("http", "nats"):
        with pytest.raises(BusUnavailable, match="127.0.0.1"):
            SyncMesh(f"{scheme}://127.0.0.1:{free_port()}").connect()
    with pytest.raises(BadInput):
        SyncMesh("ftp://127.0.0.1").connect()
    assert ours() == []


async def test_it_works_where_a_loop_runs_too(node: NodeProcess) -> None:
    """In a notebook, say: the calling thread's own loop is not touched."""
    with SyncMesh(node.api) as mesh:
        assert mesh.submit("echo", {"value": 1}) == {"value": 1}


def test_a_script_that_forgets_to_close_ends(node: NodeProcess) -> None:
    """And its Ctrl-C ends the call it hits, after which the mesh can be used on."""
    script = (
        "import os, signal, threading\n"
        "from mesh.sync import SyncMesh\n"
        "mesh = SyncMesh()\n"
        "mesh.connect()\n"
        "task = mesh.start('echo', {'sleep_s': 600})\n"
        "next(mesh.watch(task.id))\n"
        "threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()\n"
        "try:\n"
        "    task.result()\n"
        "except KeyboardInterrupt:\n"
        "    print(task.cancel().state)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, env=environment(node.api), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled\n", "")
