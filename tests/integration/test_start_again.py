"""A node starts again over whatever a node left: used, stopped or killed, with each option on and off.

Each row is a start over the folder of the rows before it. The rows of the default suite cover each pair of options; the
whole matrix, and the folders that need more than a start, are `long`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from mesh import data_folder
from mesh.bus.server.data_dir import read_marker, write_marker
from mesh.coordination import MergeOrder
from mesh.data_folder import ENTRIES
from mesh.discovery.identity import open_data_dir
from mesh.messages import decode_any
from node.lifecycle.merge_follow import adopt
from tests.nodes import Cluster, NodeProcess, eventually
from tests.scaled import kill_started

pytestmark = [pytest.mark.timeout(300)]

NAMES = {entry.name for entry in ENTRIES}


class Options(NamedTuple):
    """How a node is started, and how it ends."""

    scaling: bool
    region: bool
    slots: bool
    few_files: bool
    kill: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        scaling = ("--max-nodes", "2", "--min-nodes", "2") if self.scaling else ()
        region = ("--region", "eu-central", "--label", "disk=ssd") if self.region else ()
        return (*scaling, *region, "--slots", "3" if self.slots else "1")


#: A covering array: every pair of values of two options is in one of the rows.
PAIRS = (
    Options(True, True, False, False, True),
    Options(True, False, True, True, False),
    Options(False, True, True, False, False),
    Options(False, False, False, True, True),
    Options(True, True, True, True, True),
    Options(False, False, False, False, False),
)


def test_the_rows_cover_every_pair() -> None:
    for first, second in itertools.combinations(range(len(Options._fields)), 2):
        assert {(row[first], row[second]) for row in PAIRS} == set(itertools.product((False, True), repeat=2))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Nodes that a scaler started outlive the test's own nodes."""
    yield tmp_path
    kill_started(tmp_path)


def node_of(cluster: Cluster, options: Options) -> NodeProcess:
    """The node of the folder, with these options; not started yet."""
    node = cluster.nodes[0] if cluster.nodes else cluster.node("--preset", "local")
    cut = node.arguments.index("--preset") + 2
    node.arguments = (*node.arguments[:cut], *options.arguments)
    limit = ("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh") if options.few_files else ()
    node.command = (*limit, sys.executable, "-m", "node")
    return node


async def use(cluster: Cluster, node: NodeProcess, tasks: list[str]) -> None:
    """A new task is done, and the first one ever is still known."""
    mesh = await cluster.client()
    handle = await mesh.start("echo", {"value": len(tasks)})
    assert await handle.result(30) == {"value": len(tasks)}
    tasks.append(handle.id)
    assert (await mesh.status(tasks[0])).state == "done"
    await mesh.close()
    names = {path.name for path in node.folder.iterdir()}
    assert names <= NAMES, names - NAMES


async def start_again(cluster: Cluster, folder: Path, rows: tuple[Options, ...], tasks: list[str]) -> None:
    """Start, use, and end the same node once for each row."""
    ids = set()
    for options in rows:
        node = node_of(cluster, options)
        await node.start()
        ids.add(node.id)
        await use(cluster, node, tasks)
        if options.scaling:
            await eventually(partial(_has_started, node), 60, "a node that the scaler starts")
        if options.kill:
            await node.kill9()
        else:
            await node.terminate()
        kill_started(folder)
    assert len(ids) == 1, "the node keeps its id"


async def _has_started(node: NodeProcess) -> bool:
    return (node.folder / data_folder.STARTED_NODES).is_dir()


async def test_a_node_starts_again_with_each_pair_of_options(folder: Path) -> None:
    async with Cluster(folder) as cluster:
        await start_again(cluster, folder, PAIRS, [])


@pytest.mark.long
async def test_a_node_starts_again_with_each_combination_of_options(folder: Path) -> None:
    rows = tuple(Options(*values) for values in itertools.product((False, True), repeat=len(Options._fields)))
    async with Cluster(folder) as cluster:
        await start_again(cluster, folder, rows, [])


def test_the_folder_of_an_earlier_version_fits(tmp_path: Path) -> None:
    """It kept the time of its last start in a file where the provider of nodes needs a folder."""
    (tmp_path / "started").write_text("1764452000.0")
    (tmp_path / ".node.json.4711.new").write_text("{")
    open_data_dir(tmp_path).close()
    (tmp_path / data_folder.STARTED_NODES / "token").mkdir(parents=True)
    open_data_dir(tmp_path).close()
    open_data_dir(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} <= NAMES


@pytest.mark.long
async def test_a_node_starts_again_over_an_earlier_versions_a_damaged_and_a_rescued_store(folder: Path) -> None:
    async with Cluster(folder) as cluster:
        tasks: list[str] = []
        first = (Options(False, False, False, False, True),)
        await start_again(cluster, folder, first, tasks)
        node = cluster.nodes[0]
        # An earlier version's: the marker without peers, the time of the last start as a file.
        (node.folder / data_folder.LAST_START).unlink(missing_ok=True)
        (node.folder / "started").write_text("1764452000.0")
        await start_again(cluster, folder, PAIRS[:2], tasks)
        # Damaged: the newest block of a stream lacks its end.
        for block in (node.folder / data_folder.BUS).rglob("METRICS/msgs/*.blk"):
            os.truncate(block, block.stat().st_size // 2)
        await start_again(cluster, folder, PAIRS[2:4], tasks)
        # Rescued: the marker names servers that are lost for good.
        marker = read_marker(node.folder / data_folder.BUS)
        assert marker is not None
        lost = replace(marker, peers=(("127.0.0.1", 1), ("127.0.0.1", 2)))
        write_marker(node.folder / data_folder.BUS, lost)
        await start_again(cluster, folder, PAIRS[4:], tasks)


@pytest.mark.long
async def test_a_node_starts_again_after_its_mesh_was_merged(folder: Path) -> None:
    async with Cluster(folder / "other") as other, Cluster(folder / "own") as cluster:
        (folder / "other").mkdir()
        (folder / "own").mkdir()
        cluster.mesh_name = other.mesh_name
        await start_again(cluster, folder / "own", PAIRS[5:], [])
        (host,) = await other.start(1)
        data = open_data_dir(cluster.nodes[0].folder)
        mesh = await other.client()
        entry = await mesh.bus.kv("mesh").get("identity")
        assert entry is not None
        order = MergeOrder(into=decode_any(entry.value)["id"], urls=(other.url,), mover=host.id)
        adopt(data, order, other.mesh_name)
        data.close()
        for options in PAIRS[:4]:
            node = node_of(cluster, options)
            await node.start()
            handle = await mesh.start("echo", {"value": 1}, requires={"node": node.id})
            assert await handle.result(30) == {"value": 1}
            await (node.kill9() if options.kill else node.terminate())
            kill_started(folder)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 400 MB."""
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    yield small
    kill_started(folder)
    subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
async def test_a_node_starts_again_once_a_full_disk_has_room(small_disk: Path) -> None:
    async with Cluster(small_disk) as cluster:
        tasks: list[str] = []
        for options in PAIRS:
            await start_again(cluster, small_disk, (options,), tasks)
            ballast = small_disk / "ballast"
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _free(small_disk))
            with pytest.raises(AssertionError, match="is full"):
                await node_of(cluster, options).start()
            ballast.unlink()


def _free(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize - (1 << 20)
