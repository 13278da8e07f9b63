"""A video over three nodes gives the bytes of one node, also when a node is killed; then by command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path

import pytest

from mesh import subjects
from mesh.client import Mesh
from mesh.splitting.video import EncodeProgress, encode
from tests.integration.killing import kill_one_at_work
from tests.integration.queztl_process import queztl, start
from tests.nodes import Cluster, NodeProcess, eventually
from tests.videos import psnr, read, video

FRAMES = 150
PARTS = 6
PAYLOAD = {"preset": "medium", "crf": 24}


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def test_a_video_over_three_nodes_with_one_killed_gives_the_bytes_of_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(await asyncio.to_thread(video, FRAMES, size=(512, 288)))
    host = await cluster.node(slots=1).start()
    mesh = await cluster.client()
    alone = await encode(mesh, source, tmp_path / "alone.mp4", "h264", PAYLOAD, part_s=1.0)
    assert alone["nodes"] == [host.id] and alone["parts"] == PARTS and alone["frames"] == FRAMES
    await asyncio.gather(*(cluster.node(slots=1).start() for _ in range(2)))
    seen: set[str] = set()
    open_at_once: list[int] = []
    changed = asyncio.Event()

    def record(so_far: EncodeProgress) -> None:
        seen.update(so_far.tasks)
        open_at_once.append(len(so_far.tasks))
        changed.set()

    async def tasks() -> set[str]:
        await changed.wait()
        return seen

    killing = asyncio.create_task(kill_one_at_work(mesh, cluster.nodes[1:], tasks))
    result = await encode(mesh, source, tmp_path / "three.mp4", "h264", PAYLOAD, part_s=1.0, on_progress=record)
    dead, lost = await asyncio.wait_for(killing, 1)
    assert (tmp_path / "three.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert len(result["nodes"]) >= 2 and len(seen) == PARTS and max(open_at_once) <= 6, (result, open_at_once)
    redone = await mesh.wait(lost, 30)
    assert redone.state == "done" and redone.node != dead.id, redone
    _is_the_source(source, tmp_path / "three.mp4")
    assert sorted(path.name for path in tmp_path.iterdir() if "encode" in path.name) == []
    await _by_command(host, source, tmp_path)
    await _interrupted(mesh, host, source, tmp_path)


def _is_the_source(source: Path, target: Path) -> None:
    was, made = read(source), read(target)
    assert made.numbers == list(range(FRAMES)) and made.times == was.times
    assert all(psnr(plane, other) > 32 for plane, other in zip(made.luma, was.luma, strict=True))
    assert made.sound == was.sound and made.sound_span == was.sound_span
    assert (made.codec, made.pixel_format) == ("h264", "yuv420p")


async def _by_command(node: NodeProcess, source: Path, folder: Path) -> None:
    arguments = ("encode", source, "--codec", "av1", "--preset", "ultrafast", "--resolution", "256x144")
    done = await queztl(*arguments, "-o", folder / "small.mkv", "--part-seconds", "3", url=node.api)
    assert done.code == 0, done
    result = json.loads(done.out)
    assert f"joining 2 parts, {FRAMES} frames" in done.err and result["frames"] == FRAMES
    assert "audio: track 2, aac" in result["kept"] and result["converted"] == result["dropped"] == [], result
    made = read(folder / "small.mkv")
    assert made.codec == "av1" and made.size == (256, 144) and made.numbers == list(range(FRAMES))
    broken = folder / "broken.mp4"
    broken.write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    (folder / "empty.mp4").touch()
    for path, problem in (
        (broken, "is not a readable video file"),
        (folder / "empty.mp4", "is not a readable video file"),
        (folder / "nowhere", "is no file"),
    ):
        done = await queztl("encode", path, "-o", folder / "never.mp4", url=node.api)
        assert done.code == 2 and problem in done.err, done
    await _as_one_task(node, folder)
    before = source.read_bytes()
    for target, problem in ((source, "it is the input"), (folder / "small.mkv", "exists already; --force replaces it")):
        done = await queztl("encode", source, "-o", target, url=node.api)
        assert done.code == 2 and problem in done.err, done
    assert source.read_bytes() == before
    done = await queztl("encode", source, "-o", folder / "never.avi", url=node.api)
    assert done.code == 2 and "must end in .mp4 or .mkv" in done.err
    done = await queztl("encode", source, "-o", folder / "never.mp4", "--payload", '{"seconds": 1}', url=node.api)
    assert done.code == 2 and "payload.seconds" in done.err
    assert not (folder / "never.mp4").exists()


async def _as_one_task(node: NodeProcess, folder: Path) -> None:
    """A video without a place to cut is encoded whole, and the command says so before."""
    refresh = {"x264-params": "intra-refresh=1:keyint=25", "preset": "fast", "bf": "0"}
    (folder / "refresh.mp4").write_bytes(await asyncio.to_thread(video, 75, options=refresh))
    done = await queztl(
        "encode", folder / "refresh.mp4", "-o", folder / "whole.mp4", "--part-seconds", "1", url=node.api
    )
    reason = "has key frames from which the decoder does not give its pictures"
    assert done.code == 0 and f"the video {reason}, so it is encoded as one task" in done.err, done
    result = json.loads(done.out)
    assert result["one_task"] == reason and (result["parts"], result["frames"]) == (1, 75)
    was, made = read(folder / "refresh.mp4"), read(folder / "whole.mp4")
    assert made.numbers == was.numbers and made.sound == was.sound


async def _interrupted(mesh: Mesh, node: NodeProcess, source: Path, folder: Path) -> None:
    """Ctrl-C gives exit code 130, no task runs on, and no file is left behind."""
    arguments = ("encode", source, "-o", folder / "never.mp4", "--preset", "veryslow", "--payload", '{"crf": 5}')
    process = await start(*arguments, url=node.api)
    try:
        await eventually(lambda: _busy(mesh), 30, "a part runs")
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 130 and b"interrupted" in err and b"Traceback" not in err, (out, err)

    async def idle() -> bool:
        return not await _busy(mesh)

    await eventually(idle, 20, "the open tasks are ended")
    assert not [path for path in folder.iterdir() if path.name.startswith((".queztl", "never"))]


async def _busy(mesh: Mesh) -> bool:
    return bool((await mesh.bus.api(f"STREAM.INFO.{subjects.WORK}"))["state"]["messages"])
