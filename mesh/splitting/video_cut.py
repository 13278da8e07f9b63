"""Cuts a video file into parts without re-encoding: packets are copied.

Where the packets alone say what they hold (`video_index`), nothing is decoded here: the nodes decode the parts once and
compare them with what they encode. Else one pass decodes the whole video, so the frames of the parts, their order and
their times are those that encoding it as one task gives; containers and key flags only suggest where to cut. Facts that
the packets don't carry (`Picture`: turn, pixel aspect, colours, …) go into the payloads of the tasks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from mesh.splitting import video_part, video_pictures
from mesh.splitting.frame_times import FrameTimes
from mesh.splitting.media import Decoding, opened, rate_of, time_base_of
from mesh.splitting.media_facts import Facts, read_facts
from mesh.splitting.video_index import PacketIndex
from mesh.splitting.video_part import Coded, Coding, Header
from mesh.splitting.video_plan import TRIAL_FRAMES, CannotCut, Piece, Planner, Shown, expected_parts

#: A small copy of every n-th frame is compared with the encoded one, besides the first ones of each part.
SAMPLE_EVERY = 12


@dataclass(frozen=True)
class SourceVideo:
    """The properties of a video, from one pass over its packets."""

    path: Path
    time_base: Fraction
    rate: Fraction
    """Approximate frames per second."""
    facts: Facts
    length: int
    """Duration of a part, in units of the time base."""
    end: int | None
    """Expected end, in units of the time base; None: unknown."""
    packets: int
    """Number of packets: about the number of frames."""
    parts: int
    """Expected number of parts."""
    short: bool = False
    """Whether it is too short to cut."""
    pieces: tuple[Piece, ...] | None = None
    """The parts according to the packets; None: the video must be decoded to know them."""

    @property
    def start(self) -> Fraction:
        """Time in the file that becomes 0 in the result, seconds."""
        return self.facts.start

    @property
    def step(self) -> int:
        """Approximate duration of a frame, in units of the time base."""
        return max(1, round(1 / (self.rate * self.time_base)))

    def seconds(self, first: int, last: int) -> float:
        """Duration of a video with frames from `first` to `last`, in units of the time base."""
        return float((last + self.step - first) * self.time_base)


@dataclass(frozen=True)
class CutPart:
    """One part, to be encoded."""

    piece: Piece
    path: Path
    samples: Mapping[int, Any] | None
    """Small copies of some of its frames, by their index; None: the node makes and compares them."""


def analyse(path: Path, part_s: float) -> SourceVideo:
    """Read the packets of a file. Raises: MediaFault, OSError."""
    count = 0
    begins: int | None = None
    ends: int | None = None
    keys: list[int] = []
    with opened(path) as (container, stream):
        reading = Decoding(container, stream, 1)
        index = PacketIndex.of(container, stream)
        for packet in reading.packets():
            if not packet.size:
                continue
            count += 1
            index.add(packet)
            if packet.pts is not None:
                begins = min(packet.pts, begins if begins is not None else packet.pts)
                ends = max(packet.pts + (packet.duration or 0), ends or packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        reading.decoded = count  # nothing is decoded here, but the check for truncation still applies
        reading.check_whole()
        base, rate = time_base_of(stream), rate_of(stream)
    facts = read_facts(path)
    length = max(1, round(part_s / base))
    parts = expected_parts(keys, length, ends or 0)
    short = parts == 1 and ends is not None and begins is not None and ends - begins <= 2 * length
    pieces = None if short else index.pieces(length, ends, max(2, parts))
    return SourceVideo(path, base, rate, facts, length, ends, count, parts, short, pieces)


def cut(video: SourceVideo, folder: Path) -> Generator[CutPart, None, None]:
    """Write the parts of the video into `folder`, in order. The packets of one part are in memory.

    Raises: CannotCut when it must be encoded as one task; MediaFault, OSError.
    """
    return _decoded(video, folder) if video.pieces is None else _copied(video, video.pieces, folder)


def _copied(video: SourceVideo, pieces: tuple[Piece, ...], folder: Path) -> Generator[CutPart, None, None]:
    """Write the parts as they are planned. Raises: MediaFault, OSError."""
    waiting = iter(pieces)
    piece = next(waiting)
    held: list[Coded] = []
    with opened(video.path) as (container, stream):
        coding = video_part.coding_of(stream)
        for packet in Decoding(container, stream, 1).packets():
            if not packet.size:
                continue
            coded = video_part.coded_of(packet)
            coded.times = [packet.pts - piece.first]
            held.append(coded)
            if piece.start + len(held) < piece.stop:
                continue
            path = folder / f"part-{piece.number}"
            video_part.write(path, Header(coding, len(held), len(held)), held)
            yield CutPart(piece, path, None)
            held.clear()
            if piece is pieces[-1]:
                return
            piece = next(waiting)


def _decoded(video: SourceVideo, folder: Path) -> Generator[CutPart, None, None]:
    """Decode the video and write its parts. Raises: CannotCut, MediaFault, OSError."""
    with opened(video.path) as (container, stream):
        decoding = Decoding(container, stream, 0)
        stream.codec_context.copy_opaque = True
        cutting = _Cutting(video, folder, stream)
        for packet in decoding.packets():
            if decoding.mended:
                raise CannotCut(decoding.mended)
            if packet.size:
                packet.opaque = video_part.Mark(cutting.add_packet(packet))
            for frame in decoding.frames(packet):
                yield from cutting.add_frame(frame)
        decoding.check_whole()
        if decoding.mended:
            raise CannotCut(decoding.mended)
        yield from cutting.finish()


@dataclass
class _Cutting:
    """The packets and frames of the current part."""

    video: SourceVideo
    folder: Path
    stream: Any
    _held: list[Coded] = field(default_factory=list)
    _lasting: dict[video_part.Lasting, bytes] = field(default_factory=dict)
    _copies: list[Any] = field(default_factory=list)
    """A small copy of each frame of the part, or None."""
    _geometry: tuple[int, int, str] | None = None

    def __post_init__(self) -> None:
        self._planner = Planner(self.video.length, self.video.end)
        self._times = FrameTimes(self.video.rate, self.video.start)

    def add_packet(self, packet: Any) -> int:
        """Hold a packet; returns its number. Raises: CannotCut."""
        coded = video_part.coded_of(packet)
        self._lasting.update(coded.side)
        if coded.key:
            coded.side = list(self._lasting.items())
        self._held.append(coded)
        return self._planner.add_packet(coded.key, len(coded.data))

    def add_frame(self, frame: Any) -> Iterator[CutPart]:
        """Take the next frame; yields the part that is complete, if any. Raises: CannotCut, MediaFault."""
        number = video_part.marked(frame)
        geometry = frame.width, frame.height, frame.format.name
        self._geometry = self._geometry or geometry
        time = self._times.stamp(frame)
        if number < 0:
            raise CannotCut("has a decoder that does not say which packet a frame comes from")
        if geometry != self._geometry:
            at_s = float(time * self.video.time_base - self.video.start)
            raise CannotCut(f"changes its picture size or pixel format at {at_s:.2f} s")
        due = self._planner.add_frame(number, time)
        sampled = bool(self._planner.trial) or len(self._copies) < TRIAL_FRAMES
        sampled = sampled or len(self._copies) % SAMPLE_EVERY == 0
        self._copies.append(video_pictures.small_copy(frame) if sampled else None)
        if due and self._planner.candidate is not None:
            yield from self._try(self._planner.candidate)

    def _try(self, begins: int) -> Iterator[CutPart]:
        trial = self._planner.trial
        skipped = trial[0].packet - self._planner.start
        coding = video_part.coding_of(self.stream)
        if not decodes_alike(coding, trial, self._held[skipped:], self._copies[begins : begins + len(trial)]):
            self._planner.reject()
            return
        yield self._written(self._planner.accept(), self._copies[:begins])
        del self._held[:skipped], self._copies[:begins]

    def finish(self) -> Iterator[CutPart]:
        """Yields the last parts. Raises: CannotCut when there is only one and it is long."""
        if self._planner.candidate is not None:
            yield from self._try(self._planner.candidate)
        piece = self._planner.last()
        if piece is None:
            return
        if not self._planner.parts and piece.shown[-1].time - piece.first > 2 * self.video.length:
            reason = "has no key frame to cut at"
            if self._planner.failed:
                reason = "has key frames from which the decoder does not give its pictures"
            raise CannotCut(reason)
        yield self._written(piece, self._copies)

    def _written(self, piece: Piece, copies: list[Any]) -> CutPart:
        times: dict[int, list[int]] = {}
        for frame in piece.shown:
            times.setdefault(frame.packet, []).append(frame.time - piece.first)
        packets = [
            msgspec.structs.replace(coded, times=times.get(number, []))
            for number, coded in enumerate(self._held[: piece.stop - piece.start], piece.start)
        ]
        path = self.folder / f"part-{piece.number}"
        header = Header(video_part.coding_of(self.stream), len(packets), len(piece.shown))
        video_part.write(path, header, packets)
        return CutPart(piece, path, {index: copy for index, copy in enumerate(copies) if copy is not None})


def decodes_alike(coding: Coding, expected: tuple[Shown, ...], packets: list[Coded], copies: list[Any]) -> bool:
    """Whether a new decoder gives the frames `expected`, with the small `copies`, from `packets`.

    `packets` begin with the packet of the first of these frames.
    """
    import av

    first = expected[0].packet
    wanted = [frame.packet for frame in expected]
    context = video_part.decoder_of(coding, 1)
    found: list[Any] = []
    for number, coded in [*enumerate(packets, first), (-1, None)]:
        try:
            frames = context.decode(None if coded is None else video_part.packet_of(coded, video_part.Mark(number)))
        except (av.FFmpegError, ValueError):
            if found:
                return False
            continue  # pictures that are shown before the key frame may lack their references
        found += [frame for frame in frames if video_part.marked(frame) in wanted]
        if len(found) >= len(expected):
            found = found[: len(expected)]
            break
    if [video_part.marked(frame) for frame in found] != wanted or any(frame.is_corrupt for frame in found):
        return False
    pairs = zip(found, copies, strict=True)
    return all(video_pictures.equal(video_pictures.small_copy(frame), copy) for frame, copy in pairs)
