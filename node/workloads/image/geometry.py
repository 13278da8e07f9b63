"""Operations that move pixels: resize, crop, rotate, flip. They keep 16 bits, and mix colours by their alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.kinds.image_operations import Crop, Flip, Resize, Rotate
from mesh.kinds.image_sizes import Size, corner, placing, rotated
from node.workloads.image.alpha import premultiplied, straight
from node.workloads.image.pixels import channels, scalar, size_of
from node.workloads.image.scaling import OPENCV, scale

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image


def resize(image: Image, step: Resize) -> Image:
    """Scale, then crop or pad as `fit` says: area interpolation when a side shrinks, else linear, unless chosen."""
    plan = placing(size_of(image), step)
    scaled = scale(image, plan.scaled, step.interpolation)
    (x, y), (width, height) = plan.cut, plan.size
    if step.fit == "cover":
        return scaled if size_of(scaled) == plan.size else scaled[y : y + height, x : x + width].copy()
    return (
        scaled if size_of(scaled) == plan.size else _placed(scaled, plan.size, plan.at, _background(image, step.fill))
    )


def crop(image: Image, step: Crop) -> Image:
    """A copy of the rectangle, so that the rest is freed."""
    x, y = corner(size_of(image), step)
    return image[y : y + step.height, x : x + step.width].copy()


def rotate(image: Image, step: Rotate) -> Image:
    """Rotate anticlockwise about the centre; multiples of 90 degrees are exact, with and without `expand`."""
    import cv2
    import numpy as np

    width, height = size_of(image)
    new = rotated((width, height), step)
    background = _background(image, step.fill)
    quarters, rest = divmod(step.angle % 360, 90)
    if rest == 0:
        codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
        code = codes.get(int(quarters))
        done = image if code is None else cv2.rotate(image, code)
        return done if size_of(done) == new else _placed(done, new, None, background)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), step.angle, 1.0)
    matrix[0, 2] += (new[0] - width) / 2
    matrix[1, 2] += (new[1] - height) / 2

    def turn(pixels: Image, fill: tuple[float, ...]) -> Image:
        flags = OPENCV[step.interpolation]
        return cv2.warpAffine(pixels, matrix, new, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)

    if channels(image) < 4:
        return turn(image, background)
    # Also an opaque image, as the corners may be transparent.
    fill = premultiplied(np.array(background, image.dtype).reshape(1, 1, 4))[0, 0]
    return straight(turn(premultiplied(image), tuple(float(value) for value in fill)), image.dtype)


def flip(image: Image, step: Flip) -> Image:
    """Mirror the image."""
    import cv2

    return cv2.flip(image, {"horizontal": 1, "vertical": 0, "both": -1}[step.direction])


def _background(image: Image, fill: str | None) -> tuple[float, ...]:
    return scalar(fill, image) if fill else (0.0, 0.0, 0.0, 0.0)


def _placed(image: Image, new: Size, at: tuple[int, int] | None, background: tuple[float, ...]) -> Image:
    """`image` on a canvas of another size, at (x, y), or in the centre and cropped to it."""
    import numpy as np

    count = channels(image)
    canvas = np.empty((new[1], new[0]) if count == 1 else (new[1], new[0], count), image.dtype)
    canvas[:] = background[0] if count == 1 else background[:count]
    overlaps = []
    for axis, (old_side, new_side) in enumerate(zip(size_of(image), new, strict=True)):
        shared = min(old_side, new_side)
        start = (new_side - shared) // 2 if at is None else at[axis]
        overlaps.append((slice(start, start + shared), (old_side - shared) // 2, shared))
    (columns, x, width), (rows, y, height) = overlaps
    canvas[rows, columns] = image[y : y + height, x : x + width]
    return canvas
