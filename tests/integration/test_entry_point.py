"""The first command of README starts a node that processes image files from every interface correctly.

Results are compared with direct calls of OpenCV.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import msgspec
import nats
import numpy as np
import pytest

from tests.integration.queztl_process import queztl
from tests.nodes import ROOT, Cluster, NodeProcess

V = "/api/v1.2"
KIND = "image_processing"
#: The header that `curl -d` sends by default.
CURL = {"Content-Type": "application/x-www-form-urlencoded"}
QUALITY = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}
AT_ONCE = 8
#: The most by which a visible pixel of a lossy file differs because of the colours under transparent ones, levels.
SEEN_APART = 8


def encode(image: np.ndarray, form: str, quality: int = 90) -> bytes:
    """An image file, written by OpenCV."""
    done, data = cv2.imencode(f".{form}", image, [QUALITY[form], quality] if form in QUALITY else [])
    assert done
    return data.tobytes()


def decode(data: bytes) -> np.ndarray:
    """The pixels of a file with all channels."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def picture(width: int, height: int, channels: int) -> np.ndarray:
    """Smooth shapes, so that edge detection and lossy formats have an effect."""
    coarse = np.random.default_rng(width).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return image if channels > 1 else image.reshape(height, width)


def whole_files() -> dict[str, bytes]:
    """Name -> content; the last one is over 128 KiB, so that it is a blob in both directions."""
    noise = np.random.default_rng(1).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    return {
        "photo.jpg": encode(picture(640, 480, 3), "jpeg"),
        "gray.jpg": encode(picture(61, 97, 1), "jpeg", 75),
        "alpha.png": encode(picture(200, 120, 4), "png"),
        "scan.png": encode(picture(97, 61, 1), "png"),
        "dot.png": encode(picture(1, 1, 3), "png"),
        "wide.webp": encode(picture(500, 40, 3), "webp"),
        "noise.png": encode(noise, "png"),
    }


def damaged_files() -> dict[str, bytes]:
    """A file with a hole in its middle, and a truncated one."""
    holed, cut = bytearray(encode(picture(200, 150, 3), "png")), encode(picture(320, 240, 3), "jpeg")
    middle = len(holed) // 2
    holed[middle : middle + 300] = bytes(300)
    return {"corrupt.png": bytes(holed), "truncated.jpg": cut[: len(cut) * 2 // 3]}


def gray(image: np.ndarray) -> np.ndarray:
    """The image with one channel."""
    return image if image.ndim == 2 else cv2.cvtColor(on_white(image), cv2.COLOR_BGR2GRAY)


def on_white(image: np.ndarray) -> np.ndarray:
    """The image without alpha, laid over white."""
    if image.ndim == 2 or image.shape[2] == 3:
        return image
    share = image[:, :, 3:].astype(np.float32) / 255
    return np.rint(255 + (image[:, :, :3].astype(np.float32) - 255) * share).astype(np.uint8)


def weighed(image: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `work`, with each colour weighed by its alpha."""
    if image.ndim == 2 or image.shape[2] == 3:
        return work(image)
    wide = image.astype(np.uint16)
    done = work(np.dstack([wide[:, :, :3] * wide[:, :, 3:], wide[:, :, 3] * 255])).astype(np.float32)
    alpha = done[:, :, 3:]
    colours = done[:, :, :3] / np.maximum(alpha, 1) * 255
    return np.dstack([np.rint(colours.clip(0, 255)), np.rint(alpha / 255)]).astype(np.uint8)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize by area when a side shrinks and linearly otherwise, as the kind documents."""
    shrinks = width < image.shape[1] or height < image.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if shrinks and (width > image.shape[1] or height > image.shape[0]):
        smaller = min(width, image.shape[1]), min(height, image.shape[0])
        image, how = resize(image, *smaller), cv2.INTER_LINEAR
    return weighed(image, lambda pixels: cv2.resize(pixels, (width, height), interpolation=how))


def by_width(image: np.ndarray) -> np.ndarray:
    """Resize to a width of 64 pixels, in proportion."""
    return resize(image, 64, max(1, round(image.shape[0] * 64 / image.shape[1])))


def stretched_and_blurred(image: np.ndarray) -> np.ndarray:
    """Apply two operations in order."""
    return weighed(resize(image, 50, 40), lambda pixels: cv2.GaussianBlur(pixels, (3, 3), 0))


@dataclass(frozen=True)
class Case:
    """An operation on a file, and the same with OpenCV."""

    payload: dict[str, Any]
    by_hand: Callable[[np.ndarray], np.ndarray]
    form: str
    quality: int = 90

    def check(self, name: str, source: bytes, result: bytes, content_type: str) -> None:
        """Lossless formats hold the exact pixels; others hold what OpenCV encodes from the same pixels.

        Lossy encoders mix the colours under transparent pixels into visible ones, so the kind replaces them before:
        with alpha, a lossy result is compared as it looks over black.
        """
        assert content_type == f"image/{self.form}", (name, content_type)
        wanted, got = self.by_hand(decode(source)), decode(result)
        if self.form != "png":
            wanted = decode(encode(wanted, self.form, self.quality))
        assert got.dtype == wanted.dtype, (name, self.payload)
        assert got.shape == wanted.shape, (name, self.payload)
        if self.form != "png" and got.ndim == 3 and got.shape[2] == 4:
            assert np.array_equal(got[:, :, 3], wanted[:, :, 3]), (name, self.payload)
            apart = np.abs(got[:, :, :3].astype(int) - wanted[:, :, :3]) * wanted[:, :, 3:] / 255
            assert apart.max() <= SEEN_APART, (name, self.payload, apart.max())
            return
        assert np.array_equal(got, wanted), (name, self.payload)


OPERATIONS = [
    {"op": "resize", "width": 50, "height": 40, "keep_aspect": False, "enlarge": True},
    {"op": "blur", "radius": 1},
]
CASES = (
    Case({"width": 64, "enlarge": True, "format": "png"}, by_width, "png"),
    Case({"blur": 3, "format": "png"}, lambda i: weighed(i, lambda wide: cv2.GaussianBlur(wide, (7, 7), 0)), "png"),
    Case({"edges": True, "format": "png"}, lambda image: cv2.Canny(gray(image), 100, 200), "png"),
    Case({"grayscale": True, "format": "webp", "quality": 80}, gray, "webp", 80),
    Case({"format": "jpeg", "quality": 85}, on_white, "jpeg", 85),
    Case({"operations": OPERATIONS, "format": "webp"}, stretched_and_blurred, "webp"),
)


@pytest.fixture
async def node(tmp_path: Path):
    """A node started by start.sh in a clone with a ready environment and a foreign `node` folder."""
    clone = tmp_path / "clone"
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / "deploy").mkdir()
    for name in ("start.sh", "deploy/environment.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    # The marker that `ensure_environment` writes; .ci/run shows that it can make an environment.
    shutil.copy(ROOT / "pyproject.toml", clone / ".venv" / ".installed-from")
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (clone / "node").mkdir()
    (clone / "node" / "__main__.py").write_text("raise SystemExit('the foreign package ran')")
    async with Cluster(tmp_path) as cluster:
        made = cluster.node(fault_kinds=False)
        made.command = (str(clone / "start.sh"),)
        yield await made.start()
        cluster.print_logs()


def test_the_first_command_of_the_readme_is_start_sh() -> None:
    """It installs the libraries of every kind before it becomes the node."""
    readme = (ROOT / "README.md").read_text()
    first = re.search(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert first is not None and first[1] == "./start.sh\n"
    lines = (ROOT / "start.sh").read_text().splitlines()
    assert "what='.[all]'" in lines and 'ensure_environment .venv "$what"' in lines
    assert lines[-1] == 'exec .venv/bin/python -P -m node "$@"'


async def run_all(work: list[Awaitable[None]]) -> None:
    """Run all of it, a few at once."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def limited(job: Awaitable[None]) -> None:
        async with turn:
            await job

    async with asyncio.TaskGroup() as group:
        for job in work:
            group.create_task(limited(job))


class Rest:
    """REST calls as a person makes them with curl."""

    def __init__(self, session: aiohttp.ClientSession, api: str) -> None:
        self.session, self.api = session, api

    async def post(self, path: str, data: bytes) -> tuple[int, Any]:
        """(status, document)"""
        async with self.session.post(f"{self.api}{V}{path}", data=data, headers=CURL) as answer:
            return answer.status, await answer.json()

    async def submit(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The status of the task once it has ended."""
        body = json.dumps({"workload_type": KIND, "payload": payload}).encode()
        status, document = await self.post("/workload/submit?wait=30", body)
        assert status == 200, document
        return document

    async def upload(self, data: bytes) -> dict[str, Any]:
        """Upload a blob; returns its reference for payloads."""
        status, reference = await self.post("/blobs", data)
        assert status == 201 and reference["size"] == len(data)
        return reference

    async def check(self, name: str, data: bytes, image: Any, case: Case) -> None:
        """Submit, fetch the result, compare."""
        ended = await self.submit({"image": image, **case.payload})
        assert ended["state"] == "done", ended
        async with self.session.get(f"{self.api}{ended['links']['result']}") as answer:
            assert answer.status == 200
            case.check(name, data, await answer.read(), answer.content_type)


async def test_by_rest(node: NodeProcess) -> None:
    """Every file and operation, inside the request and as an uploaded blob; a damaged file fails by its field."""
    assert "runs     echo, crypto_mining, scientific_computing, image_processing" in node.banner
    async with aiohttp.ClientSession() as session:
        rest = Rest(session, node.api)
        work: list[Awaitable[None]] = []
        for name, data in whole_files().items():
            inline, reference = base64.b64encode(data).decode(), await rest.upload(data)
            work += [rest.check(name, data, image, case) for case in CASES for image in (inline, reference)]
        await run_all(work)
        for name, data in damaged_files().items():
            for image in (base64.b64encode(data).decode(), await rest.upload(data)):
                ended = await rest.submit({"image": image, "width": 20})
                assert (ended["state"], ended["attempt"]) == ("failed", 1), ended
                assert ended["error"]["faults"][0]["field"] == "payload.image", ended
                assert re.search("image is (a damaged PNG file|damaged)", ended["error"]["message"])
                async with session.get(f"{node.api}{ended['links']['result']}") as answer:
                    assert answer.status == 409, name


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=["resized PNG", "JPEG"])
async def test_by_map(node: NodeProcess, tmp_path: Path, case: Case) -> None:
    """One task per file; damaged files are listed, and retried once they are replaced."""
    files, out = {**whole_files(), **damaged_files()}, tmp_path / "out"
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    command = ("map", KIND, tmp_path / "in", "--out", out, "--payload", json.dumps(case.payload))
    ran = await queztl(*command, url=node.api)
    assert ran.code == 1, ran
    failed = {line.split(":")[0] for line in ran.out.splitlines() if line.startswith("  ")}
    assert {Path(path.strip()).name for path in failed} == set(damaged_files())
    listed = json.loads((out / "failures.json").read_text())
    assert {Path(failure["input"]).name: failure["faults"][0]["field"] for failure in listed} == dict.fromkeys(
        damaged_files(), "payload.image"
    )
    suffix = {"png": ".png", "jpeg": ".jpg"}[case.form]
    for name, data in whole_files().items():
        case.check(name, data, (out / f"{Path(name).stem}{suffix}").read_bytes(), f"image/{case.form}")
    assert len(list(out.glob(f"*{suffix}"))) == len(whole_files())

    for name in damaged_files():
        (tmp_path / "in" / name).write_bytes(whole_files()["photo.jpg"])
    ran = await queztl(*command, "--json", url=node.api)
    assert ran.code == 0, ran
    assert ran.lines[-1]["summary"] | {"seconds": 0} == {"done": 2, "failed": 0, "skipped": 7, "seconds": 0}
    assert not (out / "failures.json").exists()
    for name in damaged_files():
        result = (out / f"{Path(name).stem}{suffix}").read_bytes()
        case.check(name, whole_files()["photo.jpg"], result, f"image/{case.form}")


async def test_over_nats(node: NodeProcess) -> None:
    """`work.image_processing` from a plain client, as JSON and MessagePack; it reads ends and blobs too."""
    client = await nats.connect(re.findall(r"nats://\S+", node.banner)[0])
    try:
        store = await client.jetstream().object_store("blobs")
        ends = await client.subscribe("task_updates.*.*.end")
        await client.flush()
        wanted: dict[int, tuple[str, bytes, Case | None]] = {}
        jobs = [(name, data, case) for name, data in whole_files().items() for case in CASES]
        for name, data, case in [*jobs, *((name, data, None) for name, data in damaged_files().items())]:
            payload = {"image": data, **(case.payload if case else {})}
            text = json.dumps({**payload, "image": base64.b64encode(data).decode()}).encode()
            for message in (text, msgspec.msgpack.encode(payload)):
                answer = await client.request(f"work.{KIND}", message, timeout=10)
                wanted[json.loads(answer.data)["seq"]] = name, data, case
        while wanted:
            message = await ends.next_msg(timeout=30)
            end = msgspec.msgpack.decode(message.data)
            name, data, case = wanted.pop(int(message.subject.split(".")[2]))
            if case is None:
                assert end["state"] == "failed" and end["error"]["faults"][0][0] == "payload.image", (name, end)
                continue
            assert end["state"] == "done", (name, end)
            large = end.get("result_ref")
            result = (await store.get(large["blob"])).data if large else end["result"]
            case.check(name, data, result or b"", end["content_type"])
    finally:
        await client.close()
