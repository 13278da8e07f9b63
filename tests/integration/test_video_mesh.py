"""Video through a whole node: a real file with sound by REST, wrong files, progress and cancel, and the speed probe."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mesh.client import Mesh
from mesh.errors import TaskFailed
from tests.nodes import Cluster, NodeProcess, eventually
from tests.videos import psnr, read, video

CODECS = {"h264": "h264", "h265": "hevc", "av1": "av1"}


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def test_video_through_a_node(cluster: Cluster) -> None:
    node = await cluster.node().start()
    mesh = await cluster.client()
    clip = await asyncio.to_thread(video, 75, size=(640, 384))
    blob = json.loads(await _call(node, "blobs", clip, "video/mp4"))["blob"]
    for codec, name in CODECS.items():
        await _by_rest(node, codec, name, clip, blob)
    await _wrong_files(mesh)
    await _progress_and_cancel(mesh)


async def _call(node: NodeProcess, path: str, data: bytes | None = None, kind: str = "application/json") -> bytes:
    request = urllib.request.Request(f"{node.api}/api/v1.2/{path}", data, {"Content-Type": kind})

    def ask() -> bytes:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    return await asyncio.to_thread(ask)


async def _by_rest(node: NodeProcess, codec: str, name: str, clip: bytes, blob: str) -> None:
    payload: dict[str, Any] = {"video": {"blob": blob}, "preset": "ultrafast", "crf": 22, "quality": True}
    body = {"workload_type": f"VIDEO_ENCODE_{codec.upper()}", "payload": payload}
    answer = json.loads(await _call(node, "workload/submit?wait=50", json.dumps(body).encode()))
    assert answer["state"] == "done" and answer["content_type"] == "video/mp4", answer
    info = answer["info"]
    assert info["frames"] == 75 and info["fps"] > 0 and info["psnr_min_db"] > 28 and 0.7 < info["ssim"] <= 1, info
    assert "audio: track 2, aac" in info["kept"] and info["converted"] == info["dropped"] == [], info
    assert info["encoder"] in ("libx264", "libx265", "libsvtav1") or info["hardware"]
    made, was = read(await _call(node, f"workload/{answer['id']}/result")), read(clip)
    assert (made.codec, made.pixel_format, made.size) == (name, "yuv420p", (640, 384))
    assert made.numbers == list(range(75)) and made.times == was.times and made.sound == was.sound
    assert all(psnr(plane, other) > 28 for plane, other in zip(made.luma, was.luma, strict=True))


async def _wrong_files(mesh: Mesh) -> None:
    for data in (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n", b"ffconcat version 1.0\nfile /etc/passwd\n", b""):
        with pytest.raises(TaskFailed, match=r"payload\.video is not a readable video file"):
            await mesh.submit("video_encode_h264", {"video": data}, wait_s=30)


async def _progress_and_cancel(mesh: Mesh) -> None:
    """Each kind runs with rising progress and is ended by a cancel; the node goes on working."""
    for codec in CODECS:
        payload = {"resolution": "1080p", "seconds": 600, "preset": "medium"}
        handle = await mesh.start(f"video_encode_{codec}", payload)
        seen: list[float] = []

        async def progressed(task: str = handle.id, seen: list[float] = seen) -> bool:
            view = await mesh.status(task)
            seen.append(view.progress)
            return view.state == "running" and view.progress > 0 and "frames" in view.note

        await eventually(progressed, 60, f"{codec} reports its progress")
        assert (await handle.cancel()).state == "cancelled"
        assert await mesh.submit("echo", {"value": codec}, wait_s=30) == {"value": codec}
        assert seen == sorted(seen)
