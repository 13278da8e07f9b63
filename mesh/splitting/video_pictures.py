"""Compares pictures of a video with those of another encoding of it, by small copies. Requires PyAV and NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mesh.kinds.video_picture import SIDEWAYS, Turn

if TYPE_CHECKING:
    from av import VideoFrame

#: Both sides of a small copy, pixels.
SIDE = 64
#: The lowest PSNR of small copies, dB, of a picture that is taken for the same. The coarsest constant quality of the
#: encoders gives 20 to 40 (five films, one of them noise); pictures in the wrong pixel format give 8 to 13.
FLOOR_DB = 19.0


def small_copy(frame: VideoFrame) -> Any:
    """The frame in RGB, averaged to SIDE x SIDE pixels: an array of shape (SIDE, SIDE, 3)."""
    return frame.reformat(SIDE, SIDE, "rgb24", interpolation="AREA").to_ndarray()


def turned(copy: Any, turn: Turn) -> Any:
    """A small copy of a stored picture, turned upright."""
    rows = copy.swapaxes(0, 1) if turn in SIDEWAYS else copy
    rows = rows[::-1] if turn in ("flip", "rotate_180", "rotate_left", "transverse") else rows
    return rows[:, ::-1] if turn in ("mirror", "rotate_180", "rotate_right", "transverse") else rows


def equal(copy: Any, other: Any) -> bool:
    """Whether two small copies are the same, byte by byte."""
    import numpy as np

    return np.array_equal(copy, other)


def psnr_db(copy: Any, other: Any) -> float:
    """The peak signal-to-noise ratio of two small copies, dB; infinity for equal ones."""
    import numpy as np

    error = float(np.mean((copy.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if not error else 10 * math.log10(255 * 255 / error)
