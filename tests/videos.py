"""Generates video files whose frames show their numbers, and reads the contents of a file independently."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from node.workloads.video.test_pattern import Scene, read_number

SIZE = (320, 192)


def video(
    frames: int = 50,
    codec: str = "libx264",
    container: str = "mp4",
    rate: Fraction = Fraction(25),
    gop: int = 25,
    size: tuple[int, int] = SIZE,
    sound: str = "aac",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    first: int = 0,
    pixel_format: str = "yuv420p",
    muxer: dict[str, str] | None = None,
    matrix: tuple[int, ...] | None = None,
) -> bytes:
    """A file of `frames` frames numbered from `first`, with a tone of the same length unless `sound` is "".

    Each process makes a file once: many tests read the same one.
    """
    encoding, muxing = tuple((options or {}).items()), tuple((muxer or {}).items())
    return _file(
        frames, codec, container, rate, gop, size, sound, encoding, rotation, first, pixel_format, muxing, matrix
    )


@lru_cache(maxsize=64)
def _file(
    frames: int,
    codec: str,
    container: str,
    rate: Fraction,
    gop: int,
    size: tuple[int, int],
    sound: str,
    encoding: tuple[tuple[str, str], ...],
    rotation: int,
    first: int,
    pixel_format: str,
    muxing: tuple[tuple[str, str], ...],
    matrix: tuple[int, ...] | None,
) -> bytes:
    scene = Scene(*size)
    with _made(container, dict(muxing)) as (made, finished):
        stream = made.add_stream(codec, rate=rate, options={"preset": "ultrafast", "bf": "2", **dict(encoding)})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, pixel_format, gop
        stream.codec_context.color_primaries = stream.codec_context.color_trc = stream.codec_context.colorspace = 1
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        tone = made.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for number in range(frames):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, pixels in zip(frame.planes, scene.picture(first + number), strict=True):
                lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                lines[:, : plane.width] = pixels
            frame.pts, frame.time_base = number, 1 / rate
            made.mux(stream.encode(frame.reformat(format=pixel_format)))
        if tone is not None:
            for packet in _tone(tone, float(frames / rate)):
                made.mux(packet)
        made.mux(stream.encode(None))
    return finished[0]


def sound_only(seconds: float = 0.5) -> bytes:
    """An mp4 with nothing but a tone."""
    with _made("mp4", {}) as (made, finished):
        for packet in _tone(made.add_stream("aac", rate=48000, layout="stereo"), seconds):
            made.mux(packet)
    return finished[0]


@contextmanager
def _made(container: str, muxer: dict[str, str]) -> Iterator[tuple[Any, list[bytes]]]:
    """An output to fill, and a list that holds its bytes afterwards: a file, as some muxers reopen it by its name."""
    with tempfile.TemporaryDirectory() as folder:
        path, finished = Path(folder) / "video", []
        with av.open(str(path), "w", format=container, container_options=muxer) as made:
            yield made, finished
        finished.append(path.read_bytes())


def _tone(stream: Any, seconds: float) -> Any:
    at = np.arange(int(48000 * seconds)) / 48000
    loud = (0.3 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)
    frame_size = 1152 if stream.codec_context.codec.name == "mp2" else 1024
    resampler = av.AudioResampler(stream.codec_context.format.name, "stereo", 48000, frame_size=frame_size)
    frame = av.AudioFrame.from_ndarray(np.stack([loud, loud]), "fltp", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for resampled in (*resampler.resample(frame), *resampler.resample(None)):
        yield from stream.encode(resampled)
    yield from stream.encode(None)


def rewritten(data: bytes, change: Callable[[int, Any], None]) -> bytes:
    """The same packets in an MP4 of their own, each after `change(number, packet)`."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="mp4") as made:
        stream = made.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream = stream
            change(number, packet)
            made.mux(packet)
    return buffer.getvalue()


def lying(frames: int = 60) -> bytes:
    """A video of which each packet says when its picture is shown; two of them say the time of the other."""

    def exchange(number: int, packet: Any) -> None:
        packet.dts -= packet.duration
        packet.pts += {15: packet.duration, 16: -packet.duration}.get(number, 0)

    return rewritten(video(frames, size=(128, 96), gop=12, sound="", options={"bf": "0"}), exchange)


def spoiled(frames: int = 60) -> bytes:
    """A video with zeros in the second half of a picture, in a file without a fault."""

    def spoil(number: int, packet: Any) -> None:
        if number == 30:
            content = bytes(packet)
            packet.update(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))

    return rewritten(video(frames, size=(128, 96), gop=12, sound="", options={"bf": "0"}), spoil)


@dataclass
class Read:
    """The contents of a file."""

    codec: str = ""
    pixel_format: str = ""
    size: tuple[int, int] = (0, 0)
    luma: list[np.ndarray] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)
    """The times of the frames, as decoded."""
    keys: int = 0
    packet_times: list[tuple[int, int]] = field(default_factory=list)
    """(dts, pts) in the file's order."""
    sound: list[bytes] = field(default_factory=list)
    """The packets of the first track."""
    sound_codec: str = ""
    sound_span: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0))
    rotation: int = 0
    colour: int = 0

    @property
    def numbers(self) -> list[int]:
        """The numbers drawn into the frames."""
        return [read_number(plane) for plane in self.luma]


def read(data: bytes | Path) -> Read:
    """Read a whole file with plain PyAV."""
    found = Read()
    raw = data if isinstance(data, bytes) else data.read_bytes()
    with av.open(io.BytesIO(raw)) as file:
        stream = file.streams.video[0]
        found.codec, found.pixel_format = stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt
        found.size, found.colour = (stream.width, stream.height), stream.codec_context.colorspace
        for frame in file.decode(stream):
            found.luma.append(np.asarray(frame.to_ndarray()[: frame.height, : frame.width]))
            found.times.append(frame.pts * frame.time_base)
            found.rotation = frame.rotation
    with av.open(io.BytesIO(raw)) as file:
        stream = file.streams.video[0]
        for packet in file.demux(stream):
            if packet.size:
                found.packet_times.append((packet.dts, packet.pts))
                found.keys += packet.is_keyframe
    with av.open(io.BytesIO(raw)) as file:
        if file.streams.audio:
            stream = file.streams.audio[0]
            found.sound_codec = stream.codec_context.codec.canonical_name
            packets = [packet for packet in file.demux(stream) if packet.size]
            found.sound = [bytes(packet) for packet in packets]
            found.sound_span = (
                packets[0].pts * stream.time_base,
                (packets[-1].pts + packets[-1].duration) * stream.time_base,
            )
    return found


def psnr(plane: np.ndarray, other: np.ndarray, peak: float = 255.0) -> float:
    """The peak signal-to-noise ratio of two planes, by its definition."""
    error = float(np.mean((plane.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 100.0 if error == 0 else 10 * float(np.log10(peak * peak / error))
