"""The size of an image after each operation, computed before any pixel is processed (pure).

Impossible operations and results that are too large are refused before memory is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mesh.kinds.image_operations import MAX_SIDE, Crop, Resize, Rotate, Step

#: The maximum number of pixels of an input, an intermediate image or a result.
MAX_PIXELS = 100_000_000
#: The longest side of each format that can't hold MAX_SIDE.
MAX_FORMAT_SIDE = {"webp": 16_383}

Size = tuple[int, int]
"""(width, height), pixels"""
#: The largest rounding error of cos and sin at round angles, pixels.
_ROUNDING = 1e-6


class Misfit(Exception):
    """An operation does not fit the image. `field`: the operation's field; `problem`: a phrase that follows it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


def fit(size: Size, step: Resize) -> Size:
    """The size of an image of `size` after a resize; each side is at least one pixel."""
    width, height = size
    if step.width and step.height and not step.keep_aspect:
        return step.width, step.height
    by_width = step.width / width if step.width else float("inf")
    by_height = step.height / height if step.height else float("inf")
    scale = min(by_width, by_height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def corner(size: Size, step: Crop) -> tuple[int, int]:
    """(x, y) of the rectangle's top left pixel. Raises: Misfit when it does not lie inside an image of `size`."""
    starts = []
    for name, offset, side, available in (
        ("width", step.x, step.width, size[0]),
        ("height", step.y, step.height, size[1]),
    ):
        start = (available - side) // 2 if offset is None else offset
        if start < 0 or start + side > available:
            excess = side - available if offset is None else start + side - available
            raise Misfit(name, f"exceeds the image by {excess} pixels: its size there is {size[0]} x {size[1]}")
        starts.append(start)
    return starts[0], starts[1]


def rotated(size: Size, step: Rotate) -> Size:
    """The size after a rotation: with `expand` the smallest that shows the whole image, else unchanged."""
    width, height = size
    if not step.expand:
        return size
    if step.angle % 90 == 0:
        return size if step.angle % 180 == 0 else (height, width)
    angle = math.radians(step.angle)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return (
        max(1, math.ceil(width * cos + height * sin - _ROUNDING)),
        max(1, math.ceil(width * sin + height * cos - _ROUNDING)),
    )


def after(size: Size, step: Step) -> Size:
    """The size after one operation. Raises: Misfit when it does not fit `size`, or the result is too large."""
    if isinstance(step, Crop):
        corner(size, step)
        return step.width, step.height
    if isinstance(step, Resize):
        field, new = ("width" if step.width else "height"), fit(size, step)
    elif isinstance(step, Rotate):
        field, new = "angle", rotated(size, step)
    else:
        return size
    if new[0] * new[1] > MAX_PIXELS or max(new) > MAX_SIDE:
        raise Misfit(field, f"would make an image of {new[0]} x {new[1]} pixels, which is too large")
    return new


def after_all(size: Size, steps: Iterable[tuple[str, Step]]) -> Size:
    """The size after all `steps`, pairs of the prefix of the step's fields ("operations.2.") and the step.

    Raises: Misfit for the first impossible step, with the full name of the field.
    """
    for prefix, step in steps:
        try:
            size = after(size, step)
        except Misfit as error:
            raise Misfit(prefix + error.field, error.problem) from None
    return size


def check_format(size: Size, name: str) -> None:
    """Raises: Misfit when the format can't hold an image of `size`."""
    limit = MAX_FORMAT_SIDE.get(name, MAX_SIDE)
    if max(size) > limit:
        raise Misfit("format", f"can't be {name} for an image with a side over {limit} pixels")
