"""Operations on the colour of each pixel: grayscale, sepia, invert, colour, equalise. All but grayscale keep alpha.

The matrices are those of W3C Filter Effects, which define the CSS functions saturate(), hue-rotate() and sepia().
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mesh.kinds.image_operations import Colours, Equalise, Grayscale, Invert, Sepia
from node.workloads.image.alpha import has_alpha, on_visible
from node.workloads.image.pixels import channels, gray, on_colours, white

if TYPE_CHECKING:
    import numpy as np

    from node.workloads.image.pixels import Image


def grayscale(image: Image, step: Grayscale) -> Image:
    """One channel; alpha is dropped."""
    return gray(image)


def invert(image: Image, step: Invert) -> Image:
    """The negative."""
    import cv2

    return on_colours(image, cv2.bitwise_not)


def sepia(image: Image, step: Sepia) -> Image:
    """Three channels, also from gray."""
    import cv2

    coloured = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if channels(image) == 1 else image
    return on_colours(coloured, lambda colours: cv2.transform(colours, sepia_matrix(step.amount)))


def colour(image: Image, step: Colours) -> Image:
    """Brightness, contrast and gamma with one table, then saturation and hue with one matrix."""
    import cv2

    def work(colours: Image) -> Image:
        if (step.brightness, step.contrast, step.gamma) != (1.0, 1.0, 1.0):
            table = tone_table(step, white(colours))
            colours = cv2.LUT(colours, table) if colours.dtype.itemsize == 1 else table[colours]
        if channels(colours) > 1 and (step.saturation, step.hue) != (1.0, 0.0):
            colours = cv2.transform(colours, hue_matrix(step.hue) @ saturation_matrix(step.saturation))
        return colours

    return on_colours(image, work)


def tone_table(step: Colours, top: int) -> np.ndarray:
    """The result for each value of a sample, 0 to `top`."""
    import numpy as np

    value = np.arange(top + 1) / top
    value = (value * step.brightness).clip(0, 1)
    value = ((value - 0.5) * step.contrast + 0.5).clip(0, 1)
    return np.rint(value ** (1 / step.gamma) * top).astype(np.uint8 if top == 255 else np.uint16)


def equalise(image: Image, step: Equalise) -> Image:
    """Equalise the brightness (Y of YCrCb), globally or tile by tile. Transparent pixels have no part in it."""
    import cv2

    visible = image[:, :, 3] > 0 if has_alpha(image) else None
    if step.method == "clahe":
        work = cv2.createCLAHE(step.clip_limit, (step.tiles, step.tiles)).apply
    elif visible is not None and visible.any():

        def work(plane: Image) -> Image:
            return spread_table(plane[visible])[plane]

    else:
        work = _spread

    def on_brightness(colours: Image) -> Image:
        if channels(colours) == 1:
            return work(colours)
        bright, red, blue = cv2.split(cv2.cvtColor(colours, cv2.COLOR_BGR2YCrCb))
        return cv2.cvtColor(cv2.merge([work(bright), red, blue]), cv2.COLOR_YCrCb2BGR)

    return on_visible(image, on_brightness)


def _spread(image: Image) -> Image:
    """OpenCV's equalizeHist; for 16 bits, which that does not support, the same rule."""
    import cv2

    return cv2.equalizeHist(image) if image.dtype.itemsize == 1 else spread_table(image)[image]


def spread_table(image: Image) -> np.ndarray:
    """The result for each value when the histogram is equalised: equalizeHist's rule for any number of bits."""
    import numpy as np

    top = white(image)
    counts = np.bincount(image.ravel(), minlength=top + 1)
    first = int(np.flatnonzero(counts)[0])
    rest = image.size - int(counts[first])
    if not rest:
        return np.arange(top + 1).astype(image.dtype)
    sums = np.cumsum(counts) - counts[first]
    sums[: first + 1] = 0
    return np.rint(sums * (top / rest)).clip(0, top).astype(image.dtype)


def saturation_matrix(factor: float) -> np.ndarray:
    """The 3 x 3 matrix for BGR."""
    import numpy as np

    weights = np.array([0.213, 0.715, 0.072])
    return _on_bgr(np.eye(3) * factor + weights * (1 - factor))


def hue_matrix(degrees: float) -> np.ndarray:
    """The 3 x 3 matrix for BGR."""
    import numpy as np

    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    still = np.array([[0.213, 0.715, 0.072]] * 3)
    with_cos = np.eye(3) - still
    with_sin = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    return _on_bgr(still + cos * with_cos + sin * with_sin)


def sepia_matrix(amount: float) -> np.ndarray:
    """The 3 x 3 matrix for BGR."""
    import numpy as np

    brown = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    return _on_bgr(np.eye(3) * (1 - amount) + brown * amount)


def _on_bgr(matrix: np.ndarray) -> np.ndarray:
    return matrix[::-1, ::-1].copy()
