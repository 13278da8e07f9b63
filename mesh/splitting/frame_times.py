"""The times of the decoded frames of a video, the same for a whole video and for one that is cut."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av import VideoFrame


class FrameTimes:
    """Gives each frame of a video a time that increases, since encoders need increasing times.

    Some containers store no presentation times (AVI), and what FFmpeg derives for reordered pictures goes back and
    forth. Then the decoding times are used, which the decoder passes on in the order of showing, by the same rule as in
    FFmpeg's tools: whichever of both went back less often. A frame without a time, or with one that does not increase,
    gets the time after the previous frame. `rate`: frames per second; `start`: the time of a first frame without one,
    seconds.
    """

    def __init__(self, rate: Fraction, start: Fraction) -> None:
        self._rate, self._start = rate, start
        self._last: int | None = None
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._wrong_pts = self._wrong_dts = 0

    def stamp(self, frame: VideoFrame) -> int:
        """Set and return the presentation time of the next frame, in its time base. Raises: MediaFault."""
        base, time = frame.time_base, self._stored(frame)
        if base is None:
            raise MediaFault("has frames without a time")
        if self._last is not None and (time is None or time <= self._last):
            time = self._last + max(1, round(1 / (self._rate * base)))
        elif time is None:
            time = round(self._start / base)
        frame.pts = self._last = time
        return time

    def _stored(self, frame: VideoFrame) -> int | None:
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            self._wrong_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._wrong_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        return pts if pts is not None and (dts is None or self._wrong_pts <= self._wrong_dts) else dts
