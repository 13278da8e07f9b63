"""image_processing through a whole node: a batch with its report, hostile files, progress and a cancellation."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mesh.client import Mesh
from tests.integration.queztl_process import queztl
from tests.nodes import Cluster, NodeProcess, eventually


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """An image of noise, so that its files are as large as possible."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    """The image as a PNG file."""
    return cv2.imencode(".png", image)[1].tobytes()


async def test_images_through_a_node(cluster: Cluster, tmp_path: Path) -> None:
    node = await cluster.node().start()
    mesh = await cluster.client()
    await _a_batch_of_blobs_gives_one_archive(mesh)
    await _hostile_files_are_refused_and_the_node_goes_on(mesh)
    await _a_long_batch_reports_its_progress_and_is_cancelled(mesh)
    await _by_command(node, tmp_path)


async def _a_batch_of_blobs_gives_one_archive(mesh: Mesh) -> None:
    images = {f"{number}.png": picture(300, 200, number) for number in range(3)}
    payload = {name: {"blob": (await mesh.put_blob(png(image))).blob} for name, image in images.items()}
    payload["broken.png"] = png(picture(30, 20))[:200]
    operations = [
        {"op": "crop", "width": 100, "height": 80, "x": 10, "y": 10},
        {"op": "rotate", "angle": -90},
        {"op": "sharpen"},
    ]
    handle = await mesh.start("image_processing", {"images": payload, "operations": operations})
    end = await mesh.wait(handle.id, 60)
    assert end.state == "done" and end.content_type == "application/zip", end
    archive = zipfile.ZipFile(io.BytesIO(await mesh.value(end)))
    assert archive.namelist() == [*images, "report.json"]
    for name, image in images.items():
        turned = np.ascontiguousarray(np.rot90(image[10:90, 10:110], 3))
        wanted = cv2.addWeighted(turned, 2, cv2.GaussianBlur(turned, (0, 0), 1), -1, 0)
        assert np.array_equal(cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), -1), wanted)
    report = json.loads(archive.read("report.json"))["images"]
    assert [entry["name"] for entry in report if "error" in entry] == ["broken.png"]


async def _hostile_files_are_refused_and_the_node_goes_on(mesh: Mesh) -> None:
    bomb = bytearray(png(picture(4, 4)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    for data in (bytes(bomb), b"", b'<svg xmlns="http://www.w3.org/2000/svg"/>', png(picture(40, 40))[:500]):
        handle = await mesh.start("image_processing", {"image": data})
        end = await mesh.wait(handle.id, 30)
        assert end.state == "failed" and end.error is not None and end.error.code == "bad_input", end
        assert [field for field, _ in end.error.faults] == ["payload.image"] and end.attempt == 1
    assert await mesh.submit("image_processing", {"image": png(picture(9, 9)), "width": 3}, wait_s=30)


async def _a_long_batch_reports_its_progress_and_is_cancelled(mesh: Mesh) -> None:
    blob = {"blob": (await mesh.put_blob(png(picture(1500, 1000)))).blob}
    denoise = {"op": "denoise", "window": 35}
    handle = await mesh.start("image_processing", {"images": [blob] * 50, "operations": [denoise]})
    seen = set()

    async def at_work() -> bool:
        view = await mesh.status(handle.id)
        seen.add((view.progress, view.note))
        return view.state == "running" and "image 1 of 50: denoise" in view.note and len(seen) > 3

    await eventually(at_work, 60, lambda: f"it reports its progress: {seen}")
    assert (await handle.cancel()).state == "cancelled"
    assert await mesh.submit("echo", {"value": 1}, wait_s=30) == {"value": 1}


async def _by_command(node: NodeProcess, folder: Path) -> None:
    (folder / "a.png").write_bytes(png(picture(64, 48)))
    target = folder / "a.avif"
    payload = '{"format": "avif", "operations": [{"op": "watermark", "text": "\u00a9 Queztl"}]}'
    arguments = (
        "submit",
        "image_processing",
        payload,
        "--file",
        f"image={folder / 'a.png'}",
        "--wait",
        "-o",
        str(target),
    )
    done = await queztl(*arguments, url=node.api)
    assert done.code == 0, done
    assert cv2.imread(str(target)).shape == (48, 64, 3)
