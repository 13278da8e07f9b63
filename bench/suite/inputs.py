"""Input files of benchmarks, generated from a seed: the same pixels on every machine."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG (quality 90) like a photograph: large shapes, edges, texture and noise.

    Raises: ImportError without OpenCV and NumPy (extra `vision`).
    """
    import cv2
    import numpy as np

    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 160 + 2, width // 160 + 2, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        x, y, radius = (int(random.integers(0, limit)) for limit in (width, height, height // 6))
        colour = tuple(int(channel) for channel in random.integers(0, 256, 3))
        cv2.circle(image, (x, y), radius + 8, colour, -1 if radius % 2 else 5, cv2.LINE_AA)
    noise = random.normal(0.0, 6.0, image.shape).astype(np.float32)
    image = np.clip(image.astype(np.float32) + noise, 0, 255).astype(np.uint8)
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise RuntimeError("OpenCV could not write a JPEG")
    return bytes(encoded)


def with_photograph(payload: dict[str, Any]) -> dict[str, Any]:
    """`payload` with the file in the place of `image: {width, height, seed}`."""
    return payload | {"image": photograph(**payload["image"])}
