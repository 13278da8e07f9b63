"""Mends recordings: transport and program streams, which lose packets on their way and may be joined.

Other formats are refused when they are damaged. A recording is played and encoded all the same, by FFmpeg's tools too:
its clock is mended (`clock_jumps`), and its damaged pictures and packets of sound are counted.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.splitting.clock_jumps import TICKS, Clock
from mesh.splitting.media_table import CONVERTED, DROPPED, Outcome

if TYPE_CHECKING:
    from av.container import InputContainer

#: FFmpeg's names of the formats.
RECORDINGS = frozenset(("mpegts", "mpeg"))
#: A recording is refused when a smaller share of its pictures is whole; FFmpeg's tools have the same limit.
LEAST_WHOLE = Fraction(1, 3)


def is_recording(container: InputContainer) -> bool:
    """Whether the format is one of recordings."""
    return container.format.name in RECORDINGS


class Mending:
    """What was mended in one recording."""

    def __init__(self) -> None:
        self._clock = Clock()
        self.frames = 0
        """Pictures that the decoder left out, or completed from others."""
        self.shown = 0
        """Those of them that the decoder returned."""
        self.sound = 0
        """Damaged packets of sound."""
        self._first_s: float | None = None
        """Where the first damage is."""
        self._suspect: set[int] = set()
        """Times of the corrupt packets whose frames have not been decoded."""

    @property
    def jumps_s(self) -> list[float]:
        """The times in the mended file at which its clock jumped, seconds."""
        return [jump / TICKS for jump in self._clock.jumps]

    @property
    def reason(self) -> str:
        """What was mended so far, as a phrase that follows the file's name; "" for a file without a fault."""
        if self.jumps_s:
            return f"has times that jump at {self.jumps_s[0]:.2f} s, as joined recordings have"
        return "" if self._first_s is None else f"is damaged at {self._first_s:.2f} s"

    def move(self, packet: Any) -> None:
        """Take the jumps of the clock out of the times of a packet."""
        unit = packet.time_base * TICKS
        if packet.dts is not None and packet.stream.type in ("video", "audio"):
            lasts = round((packet.duration or 0) * unit)
            shift = self._clock.shift(packet.stream_index, round(packet.dts * unit), lasts)
        else:
            shift = self._clock.current(packet.stream_index)
        if shift:
            moved = round(shift / unit)
            packet.pts = None if packet.pts is None else packet.pts + moved
            packet.dts = None if packet.dts is None else packet.dts + moved

    def suspect(self, packet: Any) -> None:
        """A packet of the video is corrupt: its frame counts as damaged, also where the decoder takes it."""
        if packet.pts is not None:
            self._suspect.add(packet.pts)

    def refused(self, packet: Any, at_s: float) -> None:
        """The decoder took no frame from a packet of the video."""
        self._suspect.discard(packet.pts)
        self._count_frame(at_s)

    def decoded(self, frame: Any, at_s: float) -> None:
        """Count a frame if it is damaged."""
        if frame.is_corrupt or frame.pts in self._suspect:
            self._suspect.discard(frame.pts)
            self.shown += 1
            self._count_frame(at_s)

    def _count_frame(self, at_s: float) -> None:
        self.frames += 1
        self._first_s = at_s if self._first_s is None else self._first_s

    def count_sound(self, at_s: float) -> None:
        """Count a damaged packet of sound."""
        self.sound += 1
        self._first_s = at_s if self._first_s is None else self._first_s

    def note(self, outcome: Outcome) -> None:
        """List what was mended in the result."""
        if jumps := self.jumps_s:
            outcome.add(CONVERTED, "clock jumps", f"{len(jumps)}, the first at {jumps[0]:.2f} s")
        first = "" if self._first_s is None else f", the first at {self._first_s:.2f} s"
        if self.frames:
            outcome.add(CONVERTED, "damaged pictures", f"{self.frames}{first}")
        if self.sound:
            outcome.add(DROPPED, "damaged sound", f"{self.sound} packets{first}")
