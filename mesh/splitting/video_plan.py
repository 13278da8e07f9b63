"""Plans where to cut a video into parts that can be encoded separately, and the times of the joined video (pure).

A part begins at a key frame. Its frames are those shown from this key frame until that of the next part. Some of them
may follow the next key frame in the file (an open group of pictures), so the packets of a part extend that far, and the
packets of two parts may overlap. The presentation times determine which frames belong to a part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coded:
    """One packet of the video; packets are in file order."""

    pts: int
    """Presentation time, in the stream's time base."""
    key: bool
    shown: bool = True
    """False for a packet that is only decoded: before the start of an edit list, or a reference picture of VP8."""


@dataclass(frozen=True)
class Piece:
    """One part of the video."""

    start: int
    """Index of its first packet in the file."""
    stop: int
    """Index after its last packet."""
    times: tuple[int, ...]
    """Presentation times of its frames, in order; its packets may contain further frames of other parts."""

    @property
    def first(self) -> int:
        """Presentation time of its first frame."""
        return self.times[0]

    @property
    def end(self) -> int:
        """A time after its last frame and before any later frame."""
        return self.times[-1] + 1


def pieces(packets: Sequence[Coded], length: int) -> list[Piece]:
    """The parts, each at least `length` time base units long where key frames allow; the last may be half as long.

    Frames shown before the first key frame can't be decoded and are in no part. Without a key frame there is no part.
    """
    keys = [index for index, packet in enumerate(packets) if packet.key]
    if not keys:
        return []
    last = max(packet.pts for packet in packets)
    starts = [keys[0]]
    highest = packets[keys[0]].pts
    for index in keys[1:]:
        pts = packets[index].pts
        # The times of key frames must increase, or a part would end before it begins.
        if pts - packets[starts[-1]].pts >= length and pts > highest and last - pts >= length // 2:
            starts.append(index)
        highest = max(highest, pts)
    shown = sorted(packet.pts for packet in packets[keys[0] :] if packet.shown)
    following = [*starts[1:], None]
    found = [_piece(packets, shown, start, after) for start, after in zip(starts, following, strict=True)]
    return [piece for piece in found if piece.times]


def _piece(packets: Sequence[Coded], shown: list[int], start: int, following: int | None) -> Piece:
    times = shown[bisect_left(shown, packets[start].pts) :]
    stop = len(packets)
    if following is not None:
        end, stop = packets[following].pts, following
        times = times[: bisect_left(times, end)]
        for index in range(following + 1, len(packets)):
            if packets[index].key:
                break
            if packets[index].pts < end:
                stop = index + 1
    return Piece(start, stop, tuple(times))


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
