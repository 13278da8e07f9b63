"""Watermarks: lays a text or another image over an image, with Porter and Duff's `over` operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh.kinds.image_operations import Step, Watermark, list_characters
from node.executor.context import InputFault
from node.workloads.image import scaling
from node.workloads.image.pixels import channels, eight_bits, gray, scalar, size_of, white

if TYPE_CHECKING:
    import numpy as np

    from node.workloads.image.pixels import Image

#: Rows that are blended at a time: the floating-point arithmetic takes four times the memory of the image.
STRIP_ROWS = 256
#: The thickness of OpenCV's lines at font scale 1.
_THICKNESS = 2
_LEAST_FONT_SCALE = 0.1


def watermark(image: Image, step: Watermark, mark: Image | None) -> Image:
    """Blend the watermark into `image`. `mark`: the decoded file of a step that has one. Raises: Misfit.

    A gray image stays gray. The watermark is as wide as `scale` says, or narrower where it would exceed the height.
    """
    import numpy as np

    width, height = size_of(image)
    if mark is None:
        cover = text_mask(step.text or "", width, height, step.scale)
        paint = np.array(scalar(step.colour, image)[: min(3, channels(image))], np.float32)
        strength = scalar(step.colour, np.empty((1, 1, 4), image.dtype))[3] / white(image)
    else:
        mark = _scaled(mark, width, height, step.scale)
        cover = eight_bits(mark[:, :, 3]) if channels(mark) == 4 else np.full(mark.shape[:2], 255, np.uint8)
        paint, strength = _like(mark, image), 1.0
    x, y = place(step.position, step.margin, (width, height), size_of(cover))
    there = image[y : y + cover.shape[0], x : x + cover.shape[1]]
    for start in range(0, cover.shape[0], STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        share = cover[rows].astype(np.float32) * np.float32(step.opacity * strength / 255)
        _lay(there[rows], paint if mark is None else paint[rows], share)
    return image


def check_texts(steps: Iterable[tuple[str, Step]]) -> None:
    """Raises: InputFault naming the field of a text with characters that this node's OpenCV can't draw."""
    for prefix, step in steps:
        if isinstance(step, Watermark) and step.text and (absent := undrawable(step.text)):
            problem = (
                f"has characters that can't be drawn here: {list_characters(absent)}; send the watermark as an image"
            )
            raise InputFault(f"{prefix}text", problem)


def undrawable(text: str) -> list[str]:
    """The characters for which OpenCV has no letter, each once; it would draw "?" for them.

    Before version 5 it has only those of ASCII.
    """
    import cv2
    import numpy as np

    chars = list(dict.fromkeys(char for char in text if not char.isascii()))
    if not hasattr(cv2, "FontFace"):
        return chars

    def drawn(char: str) -> bytes:
        mask = np.zeros((64, 64), np.uint8)
        cv2.putText(mask, char, (8, 48), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255,), _THICKNESS, cv2.LINE_AA)
        return mask.tobytes()

    unknown = drawn("?") if chars else b""
    return [char for char in chars if drawn(char) == unknown]


def place(position: str, margin: int, size: tuple[int, int], mark: tuple[int, int]) -> tuple[int, int]:
    """(x, y) of a mark's top left pixel; the margin shrinks where there is no room for it."""
    words = position.split("-")
    corner = []
    for image_side, mark_side, low, high in ((size[0], mark[0], "left", "right"), (size[1], mark[1], "top", "bottom")):
        room = image_side - mark_side
        if low in words:
            corner.append(min(margin, room))
        elif high in words:
            corner.append(max(0, room - margin))
        else:
            corner.append(room // 2)
    return corner[0], corner[1]


def text_mask(text: str, width: int, height: int, scale: float) -> np.ndarray:
    """White text on black, 8 bits, with about `scale` times the `width`, and at most width x height."""
    import cv2
    import numpy as np

    font = cv2.FONT_HERSHEY_SIMPLEX
    (wide, high), below = cv2.getTextSize(text, font, 1.0, _THICKNESS)
    size = max(_LEAST_FONT_SCALE, min(width * scale / max(1, wide), height / max(1, high + below)))
    thickness = max(1, round(_THICKNESS * size))
    (wide, high), below = cv2.getTextSize(text, font, size, thickness)
    below += thickness
    mask = np.zeros((min(height, max(1, high + below + thickness)), min(width, max(1, wide))), np.uint8)
    cv2.putText(mask, text, (0, max(0, mask.shape[0] - below)), font, size, (255,), thickness, cv2.LINE_AA)
    return mask


def _scaled(mark: Image, width: int, height: int, scale: float) -> Image:
    """The mark in its final size; transparent pixels don't bleed into opaque ones."""
    old = size_of(mark)
    factor = min(width * scale / old[0], height / old[1])
    return scaling.scale(mark, (max(1, round(old[0] * factor)), max(1, round(old[1] * factor))), None)


def _like(mark: Image, image: Image) -> Image:
    """The mark's colours with the channels and bits of `image`, without alpha."""
    import cv2

    if channels(image) == 1:
        mark = gray(mark)
    elif channels(mark) != 3:
        mark = cv2.cvtColor(mark, cv2.COLOR_GRAY2BGR if channels(mark) == 1 else cv2.COLOR_BGRA2BGR)
    if mark.dtype == image.dtype:
        return mark
    return eight_bits(mark) if image.dtype.itemsize == 1 else mark.astype(image.dtype) * 257


def _lay(there: Image, paint: np.ndarray, share: np.ndarray) -> None:
    """Blend `paint` (rows of pixels, or one colour) into `there` in place, with opacity `share` (0..1)."""
    import numpy as np

    if channels(there) == 1:
        there[:] = np.rint(there + (paint - there.astype(np.float32)) * share)
        return
    share = share[:, :, None]
    under = there[:, :, :3].astype(np.float32)
    if channels(there) == 3:
        there[:] = np.rint(under + (paint - under) * share)
        return
    rest = there[:, :, 3:].astype(np.float32) / white(there) * (1 - share)
    whole = share + rest
    mixed = (paint * share + under * rest) / np.maximum(whole, 1e-6)
    there[:, :, :3] = np.rint(np.where(whole > 0, mixed, under)).clip(0, white(there))
    there[:, :, 3:] = np.rint(whole * white(there)).clip(0, white(there))
