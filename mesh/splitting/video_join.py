"""The encoded parts of a video, each looked at, and joined into one file without touching a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mesh.splitting.media import Decoding, MediaFault, opened
from mesh.splitting.media_audio import Track
from mesh.splitting.video_cut import Film
from mesh.splitting.video_plan import Piece, decode_times

FORMATS = {"mp4": "mp4", "mkv": "matroska"}


@dataclass(frozen=True)
class Part:
    """One encoded part that was found to be what it should be."""

    path: Path
    times: tuple[int, ...]
    """When each of its packets is shown, in the order of the file, in the film's time base."""
    head: bytes
    """What a decoder is told before it begins: all parts of one film must have the same."""
    bytes: int
    """Of its packets."""


def check(path: Path, film: Film, piece: Piece) -> Part:
    """Read and decode a part. Raises: MediaFault when it is not those frames of the film, each of which decodes."""
    times: list[int] = []
    size = 0
    with opened(path) as (container, stream):
        base = Fraction(stream.time_base)
        head = bytes(stream.codec_context.extradata or b"")
        reading = Decoding(container, stream, 0)
        for packet in reading.packets():
            reading.frames(packet)
            if packet.size:
                size += packet.size
                times.append(piece.first + round((packet.pts or 0) * base / film.time_base))
        reading.check_whole()
    if sorted(times) != list(piece.times):
        raise MediaFault(f"holds {len(times)} frames where there should be {len(piece.times)}, or shows them elsewhere")
    if reading.decoded != len(piece.times):
        raise MediaFault(f"gives {reading.decoded} of its {len(piece.times)} frames when it is decoded")
    return Part(path, tuple(times), head, size)


def join(
    film: Film, parts: Sequence[Part], target: Path, container: str, keep_sound: bool, told: Callable[[int], None]
) -> list[dict[str, str]]:
    """Write the film into `target`; how each track of sound came along. `told(frames written)` now and then.

    Raises: MediaFault when the parts don't belong to one another, or the sound is damaged; OSError.
    """
    import av

    if len({part.head for part in parts}) != 1:
        raise MediaFault(
            "has parts that were encoded by different versions of an encoder: name a node, or a label that nodes with "
            "the same version share, in requires"
        )
    options = {"movflags": "+faststart"} if container == "mp4" else {}
    with (
        opened(film.path) as (source, _),
        av.open(str(target), "w", format=FORMATS[container], container_options=options) as made,
    ):
        made.flags |= 0x400  # no date and no version of a library in the file: the same input, the same bytes
        with opened(parts[0].path) as (_, first):
            video = made.add_stream_from_template(first, opaque=True)
        streams = list(source.streams.audio) if keep_sound else []
        tracks = [Track(one, made, container, film.start, None) for one in streams]
        sound = _sound(source, tracks)
        for written, packet in enumerate(_pictures(film, parts), 1):
            # Sound up to that moment first, so that a player finds both in one place.
            for until in sound:
                if until >= packet.dts * film.time_base:
                    break
            packet.stream = video
            made.mux(packet)
            if written % 500 == 0:
                told(written)
        for _ in sound:
            pass
        return [track.how for track in tracks]


def _pictures(film: Film, parts: Sequence[Part]) -> Iterator[Any]:
    """Every packet of the parts in order, with the times it has in the result."""
    shift = round(film.start / film.time_base)
    shown = [time - shift for part in parts for time in part.times]
    decoded = iter(zip(shown, decode_times(shown, film.step), strict=True))
    for part in parts:
        with opened(part.path) as (container, stream):
            for packet in Decoding(container, stream, 1).packets():
                if packet.size:
                    packet.time_base = film.time_base
                    packet.pts, packet.dts = next(decoded)
                    packet.duration = film.step
                    yield packet


def _sound(source: Any, tracks: Sequence[Track]) -> Iterator[Fraction]:
    """Takes one packet after the other into its track; yields the time each ends, in the result."""
    if not tracks:
        return
    for packet in source.demux([track.source for track in tracks]):
        ends = None
        if packet.size and packet.pts is not None:
            ends = (packet.pts + (packet.duration or 0)) * packet.time_base - tracks[0].start
        next(track for track in tracks if track.source is packet.stream).take(packet)
        if ends is not None:
            yield ends
