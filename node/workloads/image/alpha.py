"""Alpha: filters see each colour weighed by its alpha, so that the colours under transparent pixels show nowhere.

The alpha of an image is straight; it is premultiplied for a filter and divided out after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.workloads.image.pixels import channels, scalar, white

if TYPE_CHECKING:
    import numpy as np

    from node.workloads.image.pixels import Image

_STRIP_ROWS = 256


def has_alpha(image: Image) -> bool:
    """Whether there are pixels to see through."""
    return channels(image) == 4 and bool(image[:, :, 3].min() < white(image))


def premultiplied(image: Image) -> Image:
    """Colour times alpha. 8 bits become 16, without any loss: a channel is colour x alpha, and alpha x 255. 16 bits
    become floating point: colour x alpha / 65535, and alpha."""
    import cv2
    import numpy as np

    if image.dtype.itemsize == 1:
        wide = np.empty(image.shape, np.uint16)
        for start in range(0, image.shape[0], _STRIP_ROWS):
            strip = image[start : start + _STRIP_ROWS]
            alpha = strip[:, :, 3]
            factors = cv2.merge([alpha, alpha, alpha, np.full_like(alpha, 255)])
            cv2.multiply(strip, factors, dst=wide[start : start + _STRIP_ROWS], dtype=cv2.CV_16U)
        return wide
    done = image.astype(np.float32)
    done[:, :, :3] *= done[:, :, 3:] / 65_535
    return done


def straight(image: Image, dtype: np.dtype) -> Image:
    """The inverse of `premultiplied`; a colour that exceeds its alpha (an overshoot) is limited to it."""
    import numpy as np

    top = np.iinfo(dtype).max
    opaque = 255 * 255 if top == 255 else top
    done = np.empty(image.shape, dtype)
    for start in range(0, image.shape[0], _STRIP_ROWS):
        rows = slice(start, start + _STRIP_ROWS)
        strip = image[rows].astype(np.float32)
        alpha = strip[:, :, 3:].clip(0, opaque)
        colours = strip[:, :, :3] / np.maximum(alpha, 1e-6) * top
        done[rows, :, :3] = np.rint(colours.clip(0, top))
        done[rows, :, 3:] = np.rint(alpha * (top / opaque))
    return done


def on_premultiplied(image: Image, work: Callable[[Image], Image]) -> Image:
    """Apply a linear filter, which mixes each channel of neighbouring pixels alike."""
    if not has_alpha(image):
        return work(image)
    return straight(work(premultiplied(image)), image.dtype)


def on_visible(image: Image, work: Callable[[Image], Image]) -> Image:
    """Apply a filter that is not linear to the colours; alpha is unchanged.

    Transparent pixels take the colour of the nearest visible one before it, so that theirs has no part in the result.
    """
    import cv2

    if channels(image) < 4:
        return work(image)
    colours = cv2.cvtColor(covered(image), cv2.COLOR_BGRA2BGR)
    return cv2.merge([*cv2.split(work(colours)), image[:, :, 3]])


def covered(image: Image) -> Image:
    """The image with the colour of the nearest visible pixel in transparent ones; they stay transparent.

    Lossy encoders mix the colours of neighbouring pixels, whether one sees them or not.
    """
    import cv2
    import numpy as np

    hidden = image[:, :, 3] == 0 if channels(image) == 4 else np.zeros(0, bool)
    if not hidden.any():
        return image
    done = image.copy()
    visible = np.flatnonzero(~hidden)
    if not len(visible):
        done[:] = 0
        return done
    _, labels = cv2.distanceTransformWithLabels(hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(len(visible) + 1, np.int64)
    nearest[labels.ravel()[visible]] = visible
    done[hidden, :3] = image.reshape(-1, 4)[nearest[labels[hidden]], :3]
    return done


def flattened(image: Image, background: str) -> Image:
    """The image without alpha, laid over the colour `background`, #rrggbb."""
    import cv2
    import numpy as np

    if channels(image) < 4:
        return image
    if not has_alpha(image):
        return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    under = np.array(scalar(background, image)[:3], np.float32)
    done = np.empty((*image.shape[:2], 3), image.dtype)
    for start in range(0, image.shape[0], _STRIP_ROWS):
        rows = slice(start, start + _STRIP_ROWS)
        share = image[rows, :, 3:].astype(np.float32) / white(image)
        done[rows] = np.rint(under + (image[rows, :, :3] - under) * share)
    return done
