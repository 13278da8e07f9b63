"""Operations that move pixels: resize, crop, rotate, flip. They treat alpha like the colours and keep 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.kinds.image_operations import Crop, Flip, Resize, Rotate
from mesh.kinds.image_sizes import corner, fit, rotated
from node.workloads.image.pixels import channels, scalar, size_of

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image


def resize(image: Image, step: Resize) -> Image:
    """Resize, by default with area interpolation when a side shrinks, else linear."""
    import cv2

    width, height = size_of(image)
    new = fit((width, height), step)
    interpolation = step.interpolation or ("area" if new[0] < width or new[1] < height else "linear")
    return cv2.resize(image, new, interpolation=_interpolation(interpolation))


def crop(image: Image, step: Crop) -> Image:
    """A copy of the rectangle, so that the rest is freed."""
    x, y = corner(size_of(image), step)
    return image[y : y + step.height, x : x + step.width].copy()


def rotate(image: Image, step: Rotate) -> Image:
    """Rotate anticlockwise about the centre; multiples of 90 degrees are exact, with and without `expand`."""
    import cv2

    width, height = size_of(image)
    new = rotated((width, height), step)
    background = _background(image, step.fill)
    quarters, rest = divmod(step.angle % 360, 90)
    if rest == 0:
        codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
        code = codes.get(int(quarters))
        done = image if code is None else cv2.rotate(image, code)
        return done if size_of(done) == new else _centred(done, new, background)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), step.angle, 1.0)
    matrix[0, 2] += (new[0] - width) / 2
    matrix[1, 2] += (new[1] - height) / 2
    return cv2.warpAffine(
        image,
        matrix,
        new,
        flags=_interpolation(step.interpolation),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=background,
    )


def flip(image: Image, step: Flip) -> Image:
    """Mirror the image."""
    import cv2

    return cv2.flip(image, {"horizontal": 1, "vertical": 0, "both": -1}[step.direction])


def _interpolation(name: str) -> int:
    import cv2

    return {
        "nearest": cv2.INTER_NEAREST,
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
    }[name]


def _background(image: Image, fill: str | None) -> tuple[float, ...]:
    return scalar(fill, image) if fill else (0.0, 0.0, 0.0, 0.0)


def _centred(image: Image, new: tuple[int, int], background: tuple[float, ...]) -> Image:
    """`image` centred on a canvas of another size, and cropped to it."""
    import numpy as np

    count = channels(image)
    canvas = np.empty((new[1], new[0]) if count == 1 else (new[1], new[0], count), image.dtype)
    canvas[:] = background[0] if count == 1 else background[:count]
    overlaps = []
    for old_side, new_side in zip(size_of(image), new, strict=True):
        shared = min(old_side, new_side)
        start = (new_side - shared) // 2
        overlaps.append((slice(start, start + shared), (old_side - shared) // 2, shared))
    (columns, x, width), (rows, y, height) = overlaps
    canvas[rows, columns] = image[y : y + height, x : x + width]
    return canvas
