"""The photograph that benchmarks of image processing use."""

from __future__ import annotations

from functools import cache


@cache
def photograph() -> bytes:
    """A JPEG of twelve megapixels and 3.7 MB, as a phone takes."""
    import cv2
    import numpy as np

    random = np.random.default_rng(1)
    image = cv2.resize(random.integers(0, 256, (60, 80, 3), np.uint8), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    image += random.integers(0, 8, image.shape, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()
