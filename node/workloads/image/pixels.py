"""Helpers for images: arrays of height x width (x 3 BGR or 4 BGRA), with 8 or 16 bits per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Image = np.ndarray


def channels(image: Image) -> int:
    """The number of channels: 1, 3 or 4."""
    return 1 if image.ndim == 2 else image.shape[2]


def size_of(image: Image) -> tuple[int, int]:
    """(width, height)"""
    return image.shape[1], image.shape[0]


def white(image: Image) -> int:
    """The largest value of a sample: 255 or 65535."""
    return 255 if image.dtype.itemsize == 1 else 65_535


def eight_bits(image: Image) -> Image:
    """The upper eight bits of each sample."""
    return image if image.dtype.itemsize == 1 else (image >> 8).astype("uint8")


def gray(image: Image) -> Image:
    """The brightness as one channel without alpha; keeps 16 bits."""
    import cv2

    count = channels(image)
    if count == 1:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if count == 4 else cv2.COLOR_BGR2GRAY)


def on_colours(image: Image, work: Callable[[Image], Image]) -> Image:
    """Apply `work`, which keeps the number of channels, to the colours; alpha is unchanged."""
    import cv2

    if channels(image) < 4:
        return work(image)
    done = work(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR))
    return cv2.merge([*cv2.split(done), image[:, :, 3]])


def scalar(colour: str, image: Image) -> tuple[float, ...]:
    """ "#rrggbb" (opaque) or "#rrggbbaa" as the samples of a pixel of `image`."""
    samples = [int(colour[place : place + 2], 16) * white(image) // 255 for place in range(1, len(colour), 2)]
    red, green, blue = samples[:3]
    if channels(image) == 1:
        return (float(round(0.299 * red + 0.587 * green + 0.114 * blue)),)
    return float(blue), float(green), float(red), float(samples[3] if len(samples) > 3 else white(image))
