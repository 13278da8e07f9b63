"""Takes the jumps out of the clock of a joined recording (pure).

Transport and program streams may be joined by copying one behind the other, and a broadcast may change its clock at any
time. FFmpeg's tools then go on where the time stamps were; so does this module, with one shift for all streams of a
section, so that sound and picture stay together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Units a second of the clock of MPEG systems.
TICKS = 90_000
#: Times that go back by more than this, or forward by more than that, show another clock; both are FFmpeg's limits.
BACK, FORWARD = TICKS // 10, 10 * TICKS


@dataclass
class _Position:
    """Where one stream is."""

    section: int
    end: int
    """After its last packet, on the new clock."""


@dataclass
class Clock:
    """Shifts the times of packets, in ticks, so that they go on without a jump."""

    jumps: list[int] = field(default_factory=list)
    """The time on the new clock of each jump."""
    _shifts: list[int] = field(default_factory=lambda: [0])
    """Of each section between two jumps."""
    _positions: dict[int, _Position] = field(default_factory=dict)
    _latest: int | None = None

    def shift(self, stream: int, time: int, duration: int) -> int:
        """What to add to the times of the next packet of a stream of pictures or sound. `time`: its decoding time.

        A stream changes to the next section by itself: its last packets may follow the first ones of other streams.
        """
        position = self._positions.get(stream)
        if position is None:
            section = len(self._shifts) - 1
            position = self._positions[stream] = _Position(section, self._first_end(time + self._shifts[section]))
        section = self._section(position, time)
        position.section, position.end = section, time + self._shifts[section] + max(0, duration)
        self._latest = max(position.end, self._latest or position.end)
        return self._shifts[section]

    def current(self, stream: int) -> int:
        """What to add to the times of a packet without a decoding time, and of subtitles, which have gaps of any
        length."""
        position = self._positions.get(stream)
        return self._shifts[-1 if position is None else position.section]

    def _first_end(self, time: int) -> int:
        return time if self._latest is None or abs(time - self._latest) <= FORWARD else self._latest

    def _section(self, position: _Position, time: int) -> int:
        for section in sorted({position.section, len(self._shifts) - 1}):
            if self._follows(position, time + self._shifts[section]):
                return section
        latest = position.end if self._latest is None else self._latest
        self._shifts.append(latest - time)
        self.jumps.append(latest)
        return len(self._shifts) - 1

    def _follows(self, position: _Position, time: int) -> bool:
        """Whether a packet at `time` can be the next one. While other streams go on, a stream may be silent."""
        return time >= position.end - BACK and time <= max(position.end, self._latest or 0) + FORWARD
