"""Scales images. What shrinks is smoothed first, by every interpolation but `nearest`, which picks pixels.

OpenCV's linear, cubic and Lanczos interpolation read a fixed number of pixels, however far apart the new ones are: fine
patterns become coarse ones (aliasing). Pillow's widen with the scale. OpenCV's area interpolation smooths when both
sides shrink, and is the fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.kinds.image_sizes import Size
from node.workloads.image.alpha import on_premultiplied
from node.workloads.image.pixels import channels, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.workloads.image.pixels import Image

#: Interpolation -> OpenCV's constant.
OPENCV: Mapping[str, int] = {"nearest": 0, "linear": 1, "cubic": 2, "area": 3, "lanczos": 4}


def scale(image: Image, new: Size, interpolation: str | None) -> Image:
    """The image in the size `new`; `interpolation` None: area where a side shrinks, else linear."""
    import cv2

    old = size_of(image)
    if new == old:
        return image
    shrinks = new[0] < old[0] or new[1] < old[1]
    name = interpolation or ("area" if shrinks else "linear")
    if name == "nearest":
        return cv2.resize(image, new, interpolation=cv2.INTER_NEAREST)
    if name == "area":
        return on_premultiplied(image, lambda pixels: _by_area(pixels, new))
    if shrinks:
        return on_premultiplied(image, lambda pixels: _by_pillow(pixels, new, name))
    return on_premultiplied(image, lambda pixels: cv2.resize(pixels, new, interpolation=OPENCV[name]))


def _by_area(image: Image, new: Size) -> Image:
    """OpenCV's area interpolation is linear in both directions if one of them grows: that one is scaled afterwards."""
    import cv2

    old = size_of(image)
    smaller = min(old[0], new[0]), min(old[1], new[1])
    done = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return done if smaller == new else cv2.resize(done, new, interpolation=cv2.INTER_LINEAR)


def _by_pillow(image: Image, new: Size, name: str) -> Image:
    import numpy as np
    from PIL import Image as Pictures

    methods = Pictures.Resampling
    method = {"linear": methods.BILINEAR, "cubic": methods.BICUBIC, "lanczos": methods.LANCZOS}[name]
    if image.dtype == np.uint8 and channels(image) < 4:
        return np.array(Pictures.fromarray(image).resize(new, method))
    top = np.iinfo(image.dtype).max if image.dtype.kind == "u" else None
    planes = [image] if image.ndim == 2 else [image[:, :, index] for index in range(image.shape[2])]
    done = []
    for plane in planes:
        scaled = np.asarray(Pictures.fromarray(plane.astype(np.float32)).resize(new, method))
        done.append(scaled if top is None else np.rint(scaled.clip(0, top)).astype(image.dtype))
    return done[0] if image.ndim == 2 else np.stack(done, axis=2)
