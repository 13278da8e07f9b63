"""Checks the encoded parts of a video and joins them into one file without re-encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mesh.splitting import video_compare, video_pictures
from mesh.splitting.media import Decoding, MediaFault, open_output, opened, time_base_of
from mesh.splitting.media_audio import ChangingAudio
from mesh.splitting.media_carry import Carrier
from mesh.splitting.media_plan import Target, plan
from mesh.splitting.media_table import Outcome
from mesh.splitting.recordings import Mending, is_recording
from mesh.splitting.video_cut import CutPart, SourceVideo
from mesh.splitting.video_plan import decode_times


@dataclass(frozen=True)
class Part:
    """One encoded and checked part."""

    path: Path
    times: tuple[int, ...]
    """Presentation times of its packets in file order, in the source's time base."""
    head: bytes
    """The decoder configuration (extradata); all parts of a video must have the same."""
    bytes: int
    """Total size of its packets."""


def check(path: Path, video: SourceVideo, part: CutPart, info: Mapping[str, Any] = MappingProxyType({})) -> Part:
    """Read an encoded part; decode it unless its node has compared it. `info`: what the node says about it.

    Raises: MediaFault unless it has exactly the frames of `part`, all decodable; OtherPictures when one of the sampled
    frames is not that of the source.
    """
    times: list[int] = []
    size = 0
    piece = part.piece
    with opened(path) as (container, stream):
        base = time_base_of(stream)
        head = stream.codec_context.extradata or b""
        reading = Decoding(container, stream, 0)
        for packet in reading.packets():
            if part.samples is not None:
                before = reading.decoded
                for number, frame in enumerate(reading.frames(packet), before):
                    _compare(number, frame, part.samples, video)
            if packet.size:
                size += packet.size
                times.append(piece.first + round((packet.pts or 0) * base / video.time_base))
        if part.samples is None:
            reading.decoded = len(times)
            video_compare.check(info)
        reading.check_whole()
    if sorted(times) != list(piece.times):
        raise MediaFault(f"has {len(times)} frames instead of {len(piece.times)}, or frames at wrong times")
    if reading.decoded != len(piece.times):
        raise MediaFault(f"has {len(piece.times)} frames, of which only {reading.decoded} can be decoded")
    return Part(path, tuple(times), head, size)


def _compare(number: int, frame: Any, samples: Mapping[int, Any], video: SourceVideo) -> None:
    if number not in samples:
        return
    source = video_pictures.turned(samples[number], video.facts.picture.turn)
    video_compare.judge(number, video_pictures.psnr_db(video_pictures.small_copy(frame), source))


@dataclass(frozen=True)
class Joined:
    """What a joined file has beside its pictures."""

    audio: list[dict[str, str]]
    """The facts of each audio track."""
    outcome: Outcome
    damaged_sound: int
    """Packets of sound that were damaged and left out."""


def join(
    video: SourceVideo, parts: Sequence[Part], path: Path, target: Target, on_progress: Callable[[int], None]
) -> Joined:
    """Write the parts, and what the source has beside its pictures, into `path`. `target`: of the whole video; its
    size and bits are taken from the parts.

    `on_progress(frames written)` is called every 500 frames.
    Raises: MediaFault when the parts have different decoder configurations, or the audio is damaged; OSError.
    """
    if len({part.head for part in parts}) != 1:
        raise MediaFault(
            "has parts that were encoded by different versions of an encoder: set requires to a node, or to a label of "
            "nodes with the same version"
        )
    try:
        return _join(video, parts, path, target, on_progress)
    except ChangingAudio:
        return _join(video, parts, path, replace(target, copy=False), on_progress)


def _join(
    video: SourceVideo, parts: Sequence[Part], path: Path, target: Target, on_progress: Callable[[int], None]
) -> Joined:
    """As `join`. Raises also: ChangingAudio."""
    with opened(video.path) as (source, _), open_output(path, target.container) as output:
        with opened(parts[0].path) as (_, first):
            stream = output.add_stream_from_template(first, opaque=True)
            context = stream.codec_context
            context.sample_aspect_ratio, context.framerate = first.sample_aspect_ratio, video.rate
            pixels = first.codec_context.format
            bits = max((component.bits for component in pixels.components), default=8) if pixels else 8
            size = (first.codec_context.width, first.codec_context.height)
            target = replace(target, size=size, bits=bits, rate=video.rate)
        mending = Mending() if is_recording(source) else None
        carrier = Carrier(plan(video.facts, target), source, output, stream, mending)
        carried = _write_carried(source, carrier, video.start)
        for written, packet in enumerate(_video_packets(video, parts), 1):
            # What is heard up to this time comes first, so that both are close together in the file.
            for until in carried:
                if until >= packet.dts * video.time_base:
                    break
            packet.stream = stream
            output.mux(packet)
            if written % 500 == 0:
                on_progress(written)
        for _ in carried:
            pass
        carrier.finish()
        damaged = mending.sound if mending is not None else 0
        return Joined([track.facts for track in carrier.audio], carrier.outcome, damaged)


def _video_packets(video: SourceVideo, parts: Sequence[Part]) -> Iterator[Any]:
    """The packets of all parts in order, with their times in the result."""
    shift = round(video.start / video.time_base)
    shown = [time - shift for part in parts for time in part.times]
    times = iter(zip(shown, decode_times(shown, video.step), strict=True))
    for part in parts:
        with opened(part.path) as (container, stream):
            for packet in Decoding(container, stream, 1).packets():
                if packet.size:
                    packet.time_base = video.time_base
                    packet.pts, packet.dts = next(times)
                    packet.duration = video.step
                    yield packet


def _write_carried(source: Any, carrier: Carrier, start: Fraction) -> Iterator[Fraction]:
    """Write the audio and subtitles packet by packet; yields the time of each in the result, seconds."""
    if not carrier.sources:
        return
    for packet in source.demux(list(carrier.sources)):
        begins = packet.pts * packet.time_base - start if packet.size and packet.pts is not None else None
        carrier.write(packet)
        if begins is not None:
            yield begins
