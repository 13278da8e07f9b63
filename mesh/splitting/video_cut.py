"""A video file read and cut into parts, without touching a picture: packets go over as they are.

Parts are NUT files: the one container that takes every codec and keeps times exactly. What NUT can't hold (which way
up, colours that only the outer container told) goes along in the tasks' payloads.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mesh.splitting.media import Decoding, MediaFault, opened, rate_of, start_of
from mesh.splitting.video_plan import Coded, Piece, decode_times, pieces


@dataclass(frozen=True)
class Film:
    """What is known of a video after one reading of its packets."""

    path: Path
    time_base: Fraction
    start: Fraction
    """Seconds: what is at this time in the file is at 0 in the result."""
    rate: Fraction
    rotation: int
    colour: tuple[int, int, int, int]
    pieces: tuple[Piece, ...]

    @property
    def frames(self) -> int:
        """Of the result."""
        return sum(len(piece.times) for piece in self.pieces)

    @property
    def step(self) -> int:
        """A frame's time, near enough."""
        return max(1, round(1 / (self.rate * self.time_base)))

    @property
    def seconds(self) -> float:
        """How long the result is."""
        last = self.pieces[-1].times[-1] + self.step
        return float((last - self.pieces[0].first) * self.time_base)


def look(path: Path, part_s: float) -> Film:
    """Read the packets of a file, and say how it is cut. Raises: MediaFault, OSError."""
    with opened(path) as (container, stream):
        reading = Decoding(container, stream, 1)
        name = stream.codec_context.codec.canonical_name
        packets = [_coded(packet, name) for packet in reading.packets() if packet.size]
        reading.decoded = len(packets)  # nothing is decoded here; whether all is there is said all the same
        reading.check_whole()
        base, start, rate = Fraction(stream.time_base), start_of(container), rate_of(stream)
    rotation, colour = _first_picture(path)
    shown = [one.pts for one in packets if one.shown]
    if len(set(shown)) != len(shown):
        raise MediaFault("shows several frames at one time, so its parts could not be told apart")
    found = pieces(packets, max(1, round(part_s / base)))
    if not found:
        raise MediaFault("has no key frame to begin with")
    return Film(path, base, start, rate, rotation, colour, tuple(found))


def _coded(packet: Any, codec: str) -> Coded:
    if packet.pts is None:
        raise MediaFault("has frames without a time, so it can't be cut: encode it as one task")
    shown = not packet.is_discard
    if codec == "vp8":
        # Bit 4 of the first byte: a picture that others refer to and nobody sees is a packet of its own.
        shown = shown and bool(memoryview(packet)[0] & 0x10)
    return Coded(packet.pts, packet.is_keyframe, shown)


def _first_picture(path: Path) -> tuple[int, tuple[int, int, int, int]]:
    """(degrees to turn to the left, colours) as a decoder tells them."""
    with opened(path) as (container, stream):
        reading = Decoding(container, stream, 1)
        for packet in reading.packets():
            for frame in reading.frames(packet):
                colour = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
                return round(frame.rotation / 90) * 90 % 360, tuple(int(one) for one in colour)  # type: ignore[return-value]
    raise MediaFault("holds no picture that can be decoded")


def cut(film: Film, folder: Path) -> Generator[tuple[Piece, Path, int], None, None]:
    """Each part in order: (what it is, its file in `folder`, the time in the film that is 0 in it).

    Only the packets of one part are in memory. Raises: MediaFault, OSError.
    """
    with opened(film.path) as (container, stream):
        packets = (packet for packet in Decoding(container, stream, 1).packets() if packet.size)
        held: list[_Held] = []
        begins = 0
        for number, piece in enumerate(film.pieces):
            # Of the part before, what this one needs too is still held.
            held, begins = held[piece.start - begins :], max(begins, piece.start)
            while begins > piece.start or begins + len(held) < piece.stop:
                packet = next(packets)
                held.append(_Held(packet, packet.pts, packet.duration))
                if begins < piece.start:
                    held.clear()
            path = folder / f"part-{number}.nut"
            yield piece, path, _write(path, stream, held[: piece.stop - piece.start], film)


@dataclass(frozen=True, slots=True)
class _Held:
    """A packet, and what it was before it was written into one part: the next part may need it too."""

    packet: Any
    pts: int
    duration: int | None


def _write(path: Path, stream: Any, held: list[_Held], film: Film) -> int:
    import av

    decoded = decode_times([one.pts for one in held], film.step)
    zero = min(decoded)
    with av.open(str(path), "w", format="nut") as made:
        copy = made.add_stream_from_template(stream, opaque=True)
        for one, dts in zip(held, decoded, strict=True):
            packet = one.packet
            packet.stream, packet.time_base = copy, film.time_base
            packet.pts, packet.dts, packet.duration = one.pts - zero, dts - zero, one.duration
            made.mux(packet)
    return zero
