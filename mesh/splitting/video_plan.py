"""Where a video is cut into parts that can be encoded one by one, and the times of what is joined again. Pure.

A part begins at a key frame. Its frames are those shown from that frame on until the next part's key frame is: some
of them may come after that key frame in the file (an open group of pictures), so a part's packets reach that far,
and the packets of two parts may overlap. Which frames of a piece count is said by their times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coded:
    """One packet of the video, in the order of the file."""

    pts: int
    """When it is shown, in the stream's time base."""
    key: bool
    shown: bool = True
    """False for what is only decoded: before an edit's start, or a reference picture of VP8."""


@dataclass(frozen=True)
class Piece:
    """One part of the video."""

    start: int
    """Its packets: from this one of the file …"""
    stop: int
    """… to before this one."""
    times: tuple[int, ...]
    """When each of its frames is shown, in order: those that count, of all that its packets hold."""

    @property
    def first(self) -> int:
        """When its first frame is shown."""
        return self.times[0]

    @property
    def end(self) -> int:
        """After its last frame, and before any other."""
        return self.times[-1] + 1


def pieces(packets: Sequence[Coded], length: int) -> list[Piece]:
    """The parts, each at least `length` (time bases) long where key frames allow; the last may be half of that.

    What is shown before the first key frame can't be decoded and is in no part. No key frame: no part.
    """
    keys = [index for index, one in enumerate(packets) if one.key]
    if not keys:
        return []
    last = max(one.pts for one in packets)
    starts = [keys[0]]
    highest = packets[keys[0]].pts
    for index in keys[1:]:
        pts = packets[index].pts
        # Times of key frames must rise, or a part would end before it begins.
        if pts - packets[starts[-1]].pts >= length and pts > highest and last - pts >= length // 2:
            starts.append(index)
        highest = max(highest, pts)
    shown = sorted(one.pts for one in packets[keys[0] :] if one.shown)
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
    """When each packet is decoded, given when each is shown, both in the order of decoding.

    The times of showing in order, put off by as many frames as the order of decoding needs: they rise, and no
    packet is decoded after it is shown. `step`: a frame's time, for those that come before the first one.
    """
    order = sorted(shown)
    rank = {time: number for number, time in enumerate(order)}
    delay = max((index - rank[time] for index, time in enumerate(shown)), default=0)
    before = [order[0] - (delay - index) * step for index in range(delay)] if order else []
    return (before + order)[: len(shown)]
