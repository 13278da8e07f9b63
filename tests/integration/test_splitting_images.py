"""A folder of images over three nodes gives the bytes of one node, also when a node is killed during it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mesh import subjects
from mesh.client import Mesh
from tests.integration.killing import kill_one_at_work
from tests.integration.queztl_process import queztl, start
from tests.nodes import Cluster

FILES = 36
#: A third of a second per file on a fast machine (a running state is reported after a tenth), in lossy formats and a
#: lossless one.
PAYLOAD = {
    "operations": [
        *[{"op": "denoise", "window": 35}] * 3,
        {"op": "rotate", "angle": 7.5},
        {"op": "watermark", "text": "Queztl", "opacity": 0.7},
    ]
}


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


def write_images(folder: Path) -> None:
    """Write images of noise of different sizes; one is too large for the payload of its task."""
    folder.mkdir()
    random = np.random.default_rng(4)
    for number in range(FILES):
        shape = (320, 400, 3) if number == 0 else (150 + number, 200, 3)
        ending = ("png", "jpg", "webp")[number % 3]
        cv2.imwrite(str(folder / f"{number:02}.{ending}"), random.integers(0, 256, shape, np.uint8))


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of each output of `map`."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.serial  # three nodes and a kill during work that uses every core
async def test_a_folder_over_three_nodes_with_one_killed_gives_the_files_of_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Each file has the same bytes; others run the task of the dead node, and every node runs some."""
    write_images(tmp_path / "in")
    host, *others = await cluster.start(1, 1, 1)
    mesh = await cluster.client()
    arguments = ("map", "image_processing", tmp_path / "in", "--payload", json.dumps(PAYLOAD))
    process = await start(*arguments, "--out", tmp_path / "three", "--json", url=host.api)
    try:
        first_outcomes = await _until_half_way(process)
        dead, lost = await asyncio.wait_for(kill_one_at_work(mesh, others, lambda: _tasks(mesh)), 30)
        out, err = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    *more, summary = (json.loads(line) for line in out.splitlines())
    assert process.returncode == 0 and summary["summary"]["done"] == FILES, (summary, err)
    ends = {outcome["task"]: await mesh.wait(outcome["task"], 30) for outcome in (*first_outcomes, *more)}
    assert len(ends) == FILES and ends[lost].node != dead.id, "its task ran elsewhere"
    assert {end.node for end in ends.values()} == {host.id, *(node.id for node in others)}
    for node in others:
        if node is not dead:
            assert await node.terminate() == 0
    alone = await queztl(*arguments, "--out", tmp_path / "one", url=host.api)
    assert alone.code == 0, alone
    expected = contents(tmp_path / "one")
    assert len(expected) == FILES and contents(tmp_path / "three") == expected


async def _until_half_way(process: asyncio.subprocess.Process) -> list[Any]:
    """Wait for the outcomes of a third of the files."""
    assert process.stdout is not None
    async with asyncio.timeout(90):
        return [json.loads(await process.stdout.readline()) for _ in range(FILES // 3)]


async def _tasks(mesh: Mesh) -> list[str]:
    """Every task that has a state."""
    answer = await mesh.bus.api(f"STREAM.INFO.{subjects.TASKS}", {"subjects_filter": "task.*.*.state"})
    parts = (subject.split(".") for subject in answer["state"].get("subjects") or {})
    return [f"{submitter}-{number}" for _, submitter, number, _ in parts]
