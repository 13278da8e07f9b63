"""Plans the parts of a video from its packets alone, where they can be trusted: nothing is decoded.

They can where the container has an index of its own (MP4, MOV, Matroska), the codec is H.264 or H.265, every packet has
one picture and its time, and enough packets start the decoder anew. Whether the packets kept their promise shows on the
node: it decodes exactly the announced frames, in the announced order and size, or refuses the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from mesh.splitting import video_part, video_units
from mesh.splitting.video_plan import CannotCut, Piece, Planner

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_CONTAINERS = frozenset(("mov", "mp4", "matroska", "webm"))


@dataclass(frozen=True, slots=True)
class Indexed:
    """One packet."""

    time: int
    """Presentation time of its picture, in the stream's time base."""
    size: int
    anew: bool
    """Whether the decoder starts anew with it."""


def pieces_of(packets: Sequence[Indexed], length: int, end: int | None) -> tuple[Piece, ...] | None:
    """The parts, cut where the decoder starts anew and all that is stored before is shown before; None without a plan.

    The same as those of a decoder that decodes the whole video and finds no other place to cut. Pure.
    """
    if not packets or not packets[0].anew or len({packet.time for packet in packets}) < len(packets):
        return None
    latest = list(accumulate((packet.time for packet in packets), max))
    earliest = list(accumulate((packet.time for packet in reversed(packets)), min))[::-1]
    begins = [
        number
        for number, packet in enumerate(packets)
        if not number or (packet.anew and latest[number - 1] < packet.time == earliest[number])
    ]
    if packets[0].time != earliest[0]:
        return None
    planner = Planner(length, end)
    found: list[Piece] = []
    try:
        for start, stop in zip(begins, [*begins[1:], len(packets)], strict=True):
            for number in range(start, stop):
                planner.add_packet(number == start, packets[number].size)
            shown = sorted(range(start, stop), key=lambda number: packets[number].time)
            found += [planner.accept() for number in shown if planner.add_frame(number, packets[number].time)]
        if planner.candidate is not None:
            found.append(planner.accept())
    except CannotCut:
        return None
    last = planner.last()
    return (*found, last) if last is not None else None


@dataclass
class PacketIndex:
    """Collects the packets of a video."""

    codec: str
    length: int
    """The size of the length before each unit; 0: the packets can't be trusted."""
    _packets: list[Indexed] = field(default_factory=list)
    _bare: bool = False
    """Whether the decoder starts anew somewhere without parameter sets."""
    _given: bool = False
    """Whether any packet has parameter sets."""

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream) -> PacketIndex:
        """An empty index of the packets of `stream`."""
        context = stream.codec_context
        codec = context.codec.canonical_name
        known = _CONTAINERS & {*container.format.name.split(",")}
        return cls(codec, video_units.length_bytes(codec, context.extradata or b"") if known else 0)

    def add(self, packet: Any) -> None:
        """Add the next packet that has content."""
        if not self.length:
            return
        lasting = any(packet.get_sidedata(kind) for kind in video_part.LASTING)
        if packet.pts is None or packet.is_discard or packet.is_corrupt or lasting:
            self.length = 0
            return
        try:
            units = video_units.units_of(self.codec, memoryview(packet), self.length)
        except video_units.Unclear:
            self.length = 0
            return
        self._given |= units.parameters
        self._bare |= units.anew and not units.parameters
        if units.parameters and not units.anew:
            self.length = 0
            return
        self._packets.append(Indexed(packet.pts, packet.size, units.anew and packet.is_keyframe))

    def pieces(self, length: int, end: int | None, expected: int) -> tuple[Piece, ...] | None:
        """The parts; None where the packets can't be trusted, or give fewer than the `expected` parts."""
        # Parameter sets at some starts only may be others than those of the configuration, and needed by the rest.
        if not self.length or (self._given and self._bare):
            return None
        found = pieces_of(self._packets, length, end)
        return found if found is not None and len(found) >= expected else None
