"""Cuts a video file into parts without re-encoding: packets are copied.

Parts are NUT files, the only container that supports every codec and keeps exact time stamps. Facts that NUT can't
store (`Picture`: turn, pixel aspect, colours, …) go into the payloads of the tasks.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mesh.splitting.media import Decoding, MediaFault, opened, rate_of, time_base_of
from mesh.splitting.media_facts import Facts, read_facts
from mesh.splitting.video_plan import Coded, Piece, decode_times, pieces


@dataclass(frozen=True)
class SourceVideo:
    """The properties of a video, from one pass over its packets."""

    path: Path
    time_base: Fraction
    rate: Fraction
    """Approximate frames per second."""
    facts: Facts
    pieces: tuple[Piece, ...]

    @property
    def start(self) -> Fraction:
        """Time in the file that becomes 0 in the result, seconds."""
        return self.facts.start

    @property
    def frames(self) -> int:
        """Number of frames of the result."""
        return sum(len(piece.times) for piece in self.pieces)

    @property
    def step(self) -> int:
        """Approximate duration of a frame, in units of the time base."""
        return max(1, round(1 / (self.rate * self.time_base)))

    @property
    def seconds(self) -> float:
        """Duration of the result."""
        last = self.pieces[-1].times[-1] + self.step
        return float((last - self.pieces[0].first) * self.time_base)


def analyse(path: Path, part_s: float) -> SourceVideo:
    """Read the packets of a file and plan its parts of about `part_s` seconds. Raises: MediaFault, OSError."""
    with opened(path) as (container, stream):
        reading = Decoding(container, stream, 1)
        name = stream.codec_context.codec.canonical_name
        packets = [_coded(packet, name) for packet in reading.packets() if packet.size]
        reading.decoded = len(packets)  # nothing is decoded here, but the check for truncation still applies
        reading.check_whole()
        base, rate = time_base_of(stream), rate_of(stream)
    facts = read_facts(path)
    shown = [packet.pts for packet in packets if packet.shown]
    if len(set(shown)) != len(shown):
        raise MediaFault("has several frames with the same time, so it can't be cut")
    found = pieces(packets, max(1, round(part_s / base)))
    if not found:
        raise MediaFault("has no key frame")
    return SourceVideo(path, base, rate, facts, tuple(found))


def _coded(packet: Any, codec: str) -> Coded:
    if packet.pts is None:
        raise MediaFault("has frames without a time stamp, so it can't be cut: encode it as one task")
    shown = not packet.is_discard
    if codec == "vp8":
        # Bit 4 of the first byte is 0 for a packet with a reference picture that is not shown.
        shown = shown and bool(memoryview(packet)[0] & 0x10)
    return Coded(packet.pts, packet.is_keyframe, shown)


def cut(video: SourceVideo, folder: Path) -> Generator[tuple[Piece, Path, int], None, None]:
    """Write the parts in order; yields (the part, its file in `folder`, the source time that is 0 in the file).

    Only the packets of one part are in memory. Raises: MediaFault, OSError.
    """
    with opened(video.path) as (container, stream):
        packets = (packet for packet in Decoding(container, stream, 1).packets() if packet.size)
        held: list[_HeldPacket] = []
        begins = 0
        for number, piece in enumerate(video.pieces):
            # Keep the packets of the previous part that this one needs as well.
            held, begins = held[piece.start - begins :], max(begins, piece.start)
            while begins > piece.start or begins + len(held) < piece.stop:
                packet = next(packets)
                held.append(_HeldPacket(packet, packet.pts, packet.duration))
                if begins < piece.start:
                    held.clear()
            path = folder / f"part-{number}.nut"
            yield piece, path, _write(path, stream, held[: piece.stop - piece.start], video)


@dataclass(frozen=True, slots=True)
class _HeldPacket:
    """A packet with its original times, since writing it changes them and the next part may need it as well."""

    packet: Any
    pts: int
    duration: int | None


def _write(path: Path, stream: Any, packets: list[_HeldPacket], video: SourceVideo) -> int:
    """Write the packets into a file; returns the source time that is 0 in it."""
    import av

    decode_pts = decode_times([held.pts for held in packets], video.step)
    zero = min(decode_pts)
    with av.open(str(path), "w", format="nut") as output:
        copy = output.add_stream_from_template(stream, opaque=True)
        for held, dts in zip(packets, decode_pts, strict=True):
            packet = held.packet
            packet.stream, packet.time_base = copy, video.time_base
            packet.pts, packet.dts, packet.duration = held.pts - zero, dts - zero, held.duration
            output.mux(packet)
    return zero
