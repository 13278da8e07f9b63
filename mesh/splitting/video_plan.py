"""Plans where to cut a video into parts that can be encoded separately, and the times of the joined video (pure).

The plan follows a decoder that decodes the whole video: it is told each packet and then each frame, with the packet
that the frame comes from. A part begins with the frame of a key packet and ends before the first frame of the next
part, in presentation order. Some of its frames may follow the next key packet in the file (an open group of pictures),
so the packets of two parts may overlap. A key packet is only a candidate: a trial must show that decoding from it gives
the same pictures, because files mark packets that don't allow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: A trial compares this many frames.
TRIAL_FRAMES = 8
#: After this many failed trials in a row the video is taken for one that can't be cut.
MAX_FAILED_TRIALS = 12
#: A part with this many bytes may end before it has the requested length.
ENOUGH_BYTES = 64_000_000
#: The packets of one part are held in memory, and travel as one blob.
MAX_BYTES = 512_000_000


class CannotCut(Exception):
    """The video can't be cut into parts that give its pictures; a phrase that follows "it". Encode it as one task."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame, in presentation order."""

    packet: int
    """Number of the packet that it comes from."""
    time: int
    """Presentation time, in the stream's time base."""


@dataclass(frozen=True)
class Piece:
    """One part of the video."""

    number: int
    start: int
    """Number of its first packet in the file."""
    stop: int
    """Number after its last packet."""
    shown: tuple[Shown, ...]
    """Its frames in presentation order; its packets may contain further frames of other parts."""

    @property
    def times(self) -> tuple[int, ...]:
        """Presentation times of its frames, in order."""
        return tuple(frame.time for frame in self.shown)

    @property
    def first(self) -> int:
        """Presentation time of its first frame."""
        return self.shown[0].time


@dataclass
class Planner:
    """Receives packets and frames; decides which key packets to try, and which part is complete.

    The parts are at least `length` time base units long where key packets allow; the last is at least half as long
    where `end`, the expected end of the video, is right.
    """

    length: int
    end: int | None = None
    failed: int = 0
    """Number of failed trials since the last cut."""
    parts: int = 0
    """Number of complete parts."""
    start: int = 0
    """Number of the first packet of the current part."""
    _keys: list[bool] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _bytes: int = 0
    _frames: list[Shown] = field(default_factory=list)
    """The frames since the start of the current part."""
    _candidate: int | None = None
    """Index in `_frames` of the frame that may begin the next part."""

    def add_packet(self, key: bool, size: int) -> int:
        """Record the next packet of the file; returns its number. Raises: CannotCut when the part is too large."""
        self._keys.append(key)
        self._sizes.append(size)
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise CannotCut(f"has no place to cut within {MAX_BYTES // 1_000_000} MB")
        return self.start + len(self._keys) - 1

    def add_frame(self, packet: int, time: int) -> bool:
        """Record the next frame; returns whether a trial is due. Raises: CannotCut."""
        if packet < self.start:
            raise CannotCut("has frames that follow a key frame and are stored before it")
        if self._candidate is None and self._may_begin(packet, time):
            self._candidate = len(self._frames)
        self._frames.append(Shown(packet, time))
        return self._candidate is not None and len(self._frames) - self._candidate >= TRIAL_FRAMES

    def _may_begin(self, packet: int, time: int) -> bool:
        if not self._frames or not self._keys[packet - self.start]:
            return False
        if sum(self._sizes[: packet - self.start]) >= ENOUGH_BYTES:
            return True
        long_enough = time - self._frames[0].time >= self.length
        return long_enough and (self.end is None or self.end - time >= self.length // 2)

    @property
    def candidate(self) -> int | None:
        """Index of the frame that may begin the next part, among the frames since the start of the current part."""
        return self._candidate

    @property
    def trial(self) -> tuple[Shown, ...]:
        """The first frames of the next part, if it begins at the candidate; empty without a candidate."""
        return () if self._candidate is None else tuple(self._frames[self._candidate :][:TRIAL_FRAMES])

    def reject(self) -> None:
        """The trial failed: the current part goes on. Raises: CannotCut after many failures."""
        self._candidate = None
        self.failed += 1
        if self.failed >= MAX_FAILED_TRIALS:
            raise CannotCut("has key frames from which the decoder does not give its pictures")

    def accept(self) -> Piece:
        """The trial succeeded: the next part begins at the candidate. Returns the complete part."""
        assert self._candidate is not None
        shown, following = self._frames[: self._candidate], self._frames[self._candidate :]
        begins = following[0].packet
        piece = Piece(self.parts, self.start, self._stop(shown, following, begins), tuple(shown))
        self._drop(begins - self.start)
        self.start, self._frames, self._candidate, self.failed = begins, following, None, 0
        self.parts += 1
        return piece

    def _stop(self, shown: list[Shown], following: list[Shown], begins: int) -> int:
        stop = max(frame.packet for frame in shown) + 1
        if stop >= self.start + len(self._keys) or stop == begins:
            return stop
        # The next packet may be the second field of the last frame: then no frame comes from it.
        return stop if any(frame.packet == stop for frame in (*shown, *following)) else stop + 1

    def _drop(self, count: int) -> None:
        self._bytes -= sum(self._sizes[:count])
        del self._keys[:count], self._sizes[:count]

    def last(self) -> Piece | None:
        """The part that ends with the video; None without a frame."""
        if not self._frames:
            return None
        return Piece(self.parts, self.start, self.start + len(self._keys), tuple(self._frames))


def expected_parts(keys: Sequence[int], length: int, end: int) -> int:
    """About how many parts a video will have. `keys`: times of its key packets, in order; `end`: its end."""
    count, begins = 1, keys[0] if keys else 0
    for time in keys:
        if time - begins >= length and end - time >= length // 2:
            count, begins = count + 1, time
    return count


def decode_times(shown: Sequence[int], step: int) -> list[int]:
    """The decoding times of packets from their presentation times, both in decoding order.

    The result is the sorted presentation times, delayed by as many frames as the reordering requires: they increase,
    and no packet is decoded after it is shown. `step`: the duration of a frame, for times before the first one.
    """
    order = sorted(shown)
    rank = {time: number for number, time in enumerate(order)}
    delay = max((index - rank[time] for index, time in enumerate(shown)), default=0)
    before = [order[0] - (delay - index) * step for index in range(delay)] if order else []
    return (before + order)[: len(shown)]
