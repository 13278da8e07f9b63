"""The files and settings of the scenes: photographs as a phone takes them, and a video."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

from bench.harness.photograph import photograph

WIDTH = 320
QUALITY = 90
IMAGE_PAYLOAD = json.dumps({"width": WIDTH, "quality": QUALITY})
PRESET, CRF, RATE = "medium", 23, 25
SIZE = (1280, 720)


def photographs(folder: Path, count: int) -> Path:
    """Write `count` JPEGs of twelve megapixels and 3.7 MB each; all have the same pixels."""
    folder.mkdir()
    data = photograph()
    for number in range(count):
        (folder / f"{number:02}.jpg").write_bytes(data)
    return folder


def video(path: Path, seconds: int) -> None:
    """Write a moving picture with some noise, as H.264 with a key frame each second."""
    import av
    import numpy as np

    random = np.random.default_rng(1)
    width, height = SIZE
    noise = random.integers(0, 24, (height + 64, width + 64, 3), np.uint8)
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", RATE
        stream.options = {"preset": "ultrafast", "crf": "18"}
        for number in range(seconds * RATE):
            at = number / RATE
            waves = np.stack([np.sin(x * 3 + at), np.cos(y * 4 - at * 1.3), np.sin(x + y + at * 0.7)], axis=2)
            picture = (waves * 90 + 120).astype(np.uint8) + noise[number % 64 :, number % 64 :][:height, :width]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def video_arguments(command: str, source: Path, target: Path) -> list[str]:
    """The arguments of `queztl encode` or `queztl submit` for the same encoding."""
    if command == "encode":
        return ["encode", str(source), "-o", str(target), "--preset", PRESET, "--crf", f"{CRF}", *_software()]
    payload = json.dumps({"preset": PRESET, "crf": CRF, "encoder": "software"})
    return ["submit", "video_encode_h264", payload, "--file", f"video={source}", "--wait", "-o", str(target)]


def _software() -> list[str]:
    return ["--payload", json.dumps({"encoder": "software"})]
