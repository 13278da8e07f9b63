"""The size of an image after each operation, computed before any pixel is processed (pure).

Impossible operations and results that are too large are refused before memory is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.kinds.image_fit import box_position
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


@dataclass(frozen=True)
class Placing:
    """How a resize fits an image to its box: scale to `scaled`, then cut or pad to `size`.

    `cut`: (x, y) in the scaled image where the result begins; `at`: (x, y) of the scaled image in a padded result.
    """

    scaled: Size
    size: Size
    cut: tuple[int, int] = (0, 0)
    at: tuple[int, int] = (0, 0)


def placing(size: Size, step: Resize) -> Placing:
    """How `step` fits an image of `size`; each side is at least one pixel, and no longer than before unless asked."""
    width, height = size
    limit = math.inf if step.enlarge else 1.0
    if step.width and step.height and not step.keep_aspect:
        stretched = tuple(
            side if step.enlarge else min(side, old) for side, old in zip((step.width, step.height), size, strict=True)
        )
        return Placing((stretched[0], stretched[1]), (stretched[0], stretched[1]))
    by_width = step.width / width if step.width else math.inf
    by_height = step.height / height if step.height else math.inf
    scale = min(limit, (max if step.fit == "cover" else min)(by_width, by_height))
    scaled = max(1, round(width * scale)), max(1, round(height * scale))
    gravity = step.gravity or "center"
    if step.fit == "inside" or not step.width or not step.height:
        return Placing(scaled, scaled)
    if step.fit == "cover":
        # Rounding must not leave a side one pixel short of the box.
        if scale < limit:
            scaled = max(scaled[0], step.width), max(scaled[1], step.height)
        new = min(scaled[0], step.width), min(scaled[1], step.height)
        return Placing(scaled, new, cut=box_position(gravity, (scaled[0] - new[0], scaled[1] - new[1])))
    scaled = min(scaled[0], step.width), min(scaled[1], step.height)
    room = step.width - scaled[0], step.height - scaled[1]
    return Placing(scaled, (step.width, step.height), at=box_position(gravity, room))


def fit(size: Size, step: Resize) -> Size:
    """The size of an image of `size` after a resize."""
    return placing(size, step).size


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
        plan = placing(size, step)
        field, new = ("width" if step.width else "height"), plan.size
        _check_size(field, plan.scaled)
    elif isinstance(step, Rotate):
        field, new = "angle", rotated(size, step)
    else:
        return size
    _check_size(field, new)
    return new


def _check_size(field: str, size: Size) -> None:
    if size[0] * size[1] > MAX_PIXELS or max(size) > MAX_SIDE:
        raise Misfit(field, f"would make an image of {size[0]} x {size[1]} pixels, which is too large")


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
