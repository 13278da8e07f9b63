"""Turns an image upright: the eight orientations of EXIF, which are the symmetries of a rectangle's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image

#: Orientation -> (whether rows and columns are swapped first, then mirrored left to right, then top to bottom).
_STEPS = {
    1: (False, False, False), 2: (False, True, False), 3: (False, True, True), 4: (False, False, True),
    5: (True, False, False), 6: (True, True, False), 7: (True, True, True), 8: (True, False, True),
}  # fmt: skip


def upright(image: Image, orientation: int) -> Image:
    """The image as it is to be seen; `orientation`: 1 (as stored) to 8, as EXIF numbers them."""
    import cv2

    is_swapped, is_mirrored, is_flipped = _STEPS[orientation]
    if is_swapped:
        image = cv2.transpose(image)
    if is_mirrored or is_flipped:
        image = cv2.flip(image, -1 if is_mirrored and is_flipped else 1 if is_mirrored else 0)
    return image
