"""How large an image is after an operation, known before any pixel is touched (pure).

So a list of operations that can't work, or whose result would be too large, is refused before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mesh.kinds.image_operations import MAX_SIDE, Crop, Resize, Rotate, Step

#: No image is decoded, and none is made, that has more pixels than this.
MAX_PIXELS = 100_000_000
#: The longest side each format can hold, where it is shorter than what the mesh takes.
MAX_FORMAT_SIDE = {"webp": 16_383}

Size = tuple[int, int]
"""(width, height), pixels"""
#: cos and sin of round angles miss round numbers by this much of a pixel at most.
_ROUNDING = 1e-6


class Misfit(Exception):
    """An operation does not go with this image: `field` is the operation's own, `problem` a phrase that follows it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


def fit(size: Size, wanted: Resize) -> Size:
    """The size that `wanted` makes of an image of `size`; never less than one pixel a side."""
    width, height = size
    if wanted.width and wanted.height and not wanted.keep_aspect:
        return wanted.width, wanted.height
    by_width = wanted.width / width if wanted.width else float("inf")
    by_height = wanted.height / height if wanted.height else float("inf")
    scale = min(by_width, by_height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def corner(size: Size, wanted: Crop) -> tuple[int, int]:
    """(x, y) of the rectangle's top left pixel. Raises: Misfit when it does not lie inside an image of `size`."""
    places = []
    for name, place, side, there in (
        ("width", wanted.x, wanted.width, size[0]),
        ("height", wanted.y, wanted.height, size[1]),
    ):
        start = (there - side) // 2 if place is None else place
        if start < 0 or start + side > there:
            over = side - there if place is None else start + side - there
            raise Misfit(name, f"reaches {over} pixels over the edge: the image is {size[0]} x {size[1]} there")
        places.append(start)
    return places[0], places[1]


def turned(size: Size, wanted: Rotate) -> Size:
    """The size after a rotation: the smallest that shows everything, or the same."""
    width, height = size
    if not wanted.expand:
        return size
    if wanted.angle % 90 == 0:
        return size if wanted.angle % 180 == 0 else (height, width)
    angle = math.radians(wanted.angle)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return (
        max(1, math.ceil(width * cos + height * sin - _ROUNDING)),
        max(1, math.ceil(width * sin + height * cos - _ROUNDING)),
    )


def after(size: Size, step: Step) -> Size:
    """The size after one operation. Raises: Misfit when it does not go with `size`, or makes too large an image."""
    if isinstance(step, Crop):
        corner(size, step)
        return step.width, step.height
    if isinstance(step, Resize):
        field, new = ("width" if step.width else "height"), fit(size, step)
    elif isinstance(step, Rotate):
        field, new = "angle", turned(size, step)
    else:
        return size
    if new[0] * new[1] > MAX_PIXELS or max(new) > MAX_SIDE:
        raise Misfit(field, f"would make an image of {new[0]} x {new[1]} pixels; that is too large")
    return new


def after_all(size: Size, steps: Iterable[tuple[str, Step]]) -> Size:
    """The size after all `steps`: pairs of the prefix of a step's fields ("operations.2.") and the step.

    Raises: Misfit with the whole name of the field, for the first step that can't work.
    """
    for prefix, step in steps:
        try:
            size = after(size, step)
        except Misfit as error:
            raise Misfit(prefix + error.field, error.problem) from None
    return size


def check_format(size: Size, name: str) -> None:
    """Raises: Misfit when a file of that format can't hold an image of `size`."""
    limit = MAX_FORMAT_SIDE.get(name, MAX_SIDE)
    if max(size) > limit:
        raise Misfit("format", f"can't be {name} for an image with a side over {limit} pixels")
