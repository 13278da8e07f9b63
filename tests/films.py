"""Makes video files with tracks, titles, chapters and other facts, and reads the facts of a file with plain PyAV."""

from __future__ import annotations

import io
import struct
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition

from node.workloads.video.test_pattern import Scene

SIZE = (160, 96)
MS = Fraction(1, 1000)
NONE = Disposition(0)
Line = tuple[int, int, str]
"""Start and duration of a subtitle in ms, and its text."""


#: The files made so far, by what is in them.
_FILES: dict[str, bytes] = {}


@dataclass
class Sound:
    """One audio track: channel n has a tone of 300 (n + 1) Hz."""

    codec: str = "aac"
    layout: str = "stereo"
    language: str = ""
    title: str = ""
    flags: Disposition = NONE
    starts: float = 0.0
    """Seconds."""
    seconds: float = 1.0


@dataclass
class Subtitles:
    """One track of subtitles; one of PGS bitmaps has a packet with PGS for each line."""

    lines: tuple[Line, ...]
    codec: str = "subrip"
    language: str = ""
    flags: Disposition = NONE


@dataclass
class Film:
    """What to put into a file."""

    container: str = "matroska"
    codec: str = "libx264"
    frames: int = 25
    size: tuple[int, int] = SIZE
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    colour: tuple[int, int, int, int] = (1, 1, 1, 1)
    fields: str = ""
    """tff or bff: interlaced."""
    order: int = 0
    """FFmpeg's AVFieldOrder for the container; 0: that of `fields`."""
    matrix: tuple[int, ...] | None = None
    aspect: Fraction | None = None
    starts: float = 0.0
    sounds: tuple[Sound, ...] = ()
    subtitles: tuple[Subtitles, ...] = ()
    chapters: tuple[tuple[int, int, str], ...] = ()
    """(start and end in ms, title)"""
    tags: dict[str, str] = field(default_factory=dict)
    video_tags: dict[str, str] = field(default_factory=dict)
    cover: bytes = b""
    font: bytes = b""
    second_video: bool = False

    def data(self) -> bytes:
        """The file; each process makes it once."""
        key = repr(self)
        if key not in _FILES:
            _FILES[key] = self._made()
        return _FILES[key]

    def _made(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film"
            with av.open(str(path), "w", format=self.container) as output:
                self._write(output)
            return path.read_bytes()

    def _write(self, output: Any) -> None:
        video = self._video(output)
        second = output.add_stream("libx264", rate=25, width=64, height=64) if self.second_video else None
        sounds = [self._sound(output, sound) for sound in self.sounds]
        texts = [_text_stream(output, track) for track in self.subtitles]
        if self.cover and self.container == "matroska":
            output.add_attachment("cover.jpg", "image/jpeg", self.cover)
        if self.font:
            output.add_attachment("font.ttf", "font/ttf", self.font)
        output.metadata.update(self.tags)
        output.set_chapters([
            {"id": number, "start": start, "end": end, "time_base": MS, "metadata": {"title": title}}
            for number, (start, end, title) in enumerate(self.chapters, 1)
        ])  # fmt: skip
        packets: list[Any] = []
        for number, frame in enumerate(self._pictures()):
            packets += video.encode(frame)
            if second is not None:
                blank = av.VideoFrame(64, 64, "yuv420p")
                for plane in blank.planes:
                    plane.update(bytes(plane.buffer_size))
                blank.pts, blank.time_base = number, Fraction(1, 25)
                packets += second.encode(blank)
        packets += video.encode(None) + (second.encode(None) if second is not None else [])
        for sound, stream in zip(self.sounds, sounds, strict=True):
            packets += _tones(sound, stream)
        for track, stream in zip(self.subtitles, texts, strict=True):
            packets += _text_packets(track, stream)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)

    def _video(self, output: Any) -> Any:
        options = {"preset": "ultrafast"} if self.codec.startswith("libx26") else {}
        stream = output.add_stream(self.codec, rate=25, options={**options, **self.options})
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *self.size, self.pixel_format, 12
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = self.colour
        if self.aspect is not None:
            context.sample_aspect_ratio = self.aspect
        if self.fields:
            context.flags |= (1 << 18) | (1 << 29)  # interlaced DCT and motion estimation
            context.field_order = self.order or (2 if self.fields == "tff" else 3)
        if self.matrix is not None:
            stream.set_display_matrix(self.matrix)
        stream.metadata.update(self.video_tags)
        return stream

    def _pictures(self) -> Any:
        scene, offset = Scene(*self.size), round(self.starts * 25)
        graph = None
        for number in range(self.frames):
            frame = av.VideoFrame(*self.size, "yuv420p")
            for plane, pixels in zip(frame.planes, scene.picture(number), strict=True):
                lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                lines[:, : plane.width] = pixels
            frame = frame.reformat(format=self.pixel_format)
            frame.pts, frame.time_base = number + offset, Fraction(1, 25)
            if self.fields:
                if graph is None:
                    graph = Graph()
                    source = graph.add_buffer(
                        width=self.size[0], height=self.size[1], format=self.pixel_format, time_base=Fraction(1, 25)
                    )
                    graph.link_nodes(source, graph.add("setfield", self.fields), graph.add("buffersink")).configure()
                graph.vpush(frame)
                frame = graph.vpull()
            yield frame

    def _sound(self, output: Any, sound: Sound) -> Any:
        stream = output.add_stream(sound.codec, rate=48000, layout=sound.layout)
        if sound.codec == "aac":
            stream.bit_rate = 96_000 * stream.codec_context.layout.nb_channels
        stream.disposition = sound.flags
        stream.metadata.update({"language": sound.language, "title": sound.title})
        return stream


def _tones(sound: Sound, stream: Any) -> Any:
    """Written as interleaved floats: PyAV's planar arrays end at 7 channels."""
    context = stream.codec_context
    count = context.layout.nb_channels
    at = np.arange(int(48000 * sound.seconds))[:, None] / 48000
    loud = (0.2 * np.sin(2 * np.pi * 300 * (np.arange(count) + 1) * at)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(loud.reshape(1, -1)), "flt", sound.layout)
    frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), round(sound.starts * 48000)
    frame_size = 1152 if sound.codec == "mp2" else 1024
    resampler = av.AudioResampler(context.format.name, sound.layout, 48000, frame_size=frame_size)
    packets = []
    for resampled in (*resampler.resample(frame), *resampler.resample(None)):
        packets += stream.encode(resampled)
    return packets + stream.encode(None)


#: A display set of PGS: its composition and its end.
PGS = bytes((0x16, 0, 11)) + bytes(11) + bytes((0x80, 0, 0))
_TEXT = ("subrip", "ass", "webvtt", "mov_text")


def _text_stream(output: Any, track: Subtitles) -> Any:
    if track.codec in _TEXT and track.codec != "ass":
        stream = output.add_mux_stream(track.codec)
    elif track.codec == "ass":
        stream = output.add_stream("ass")
        stream.codec_context.subtitle_header = _ASS.encode()
    else:
        stream = output.add_mux_stream(track.codec)
    stream.disposition = track.flags
    if track.language:
        stream.metadata["language"] = track.language
    return stream


_ASS = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour, "
    "SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, "
    "BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\nStyle: Default,Arial,16,&Hffffff,"
    "&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n[Events]\nFormat: Layer, Start, End, Style, Name, "
    "MarginL, MarginR, MarginV, Effect, Text\n"
)


def _text_packets(track: Subtitles, stream: Any) -> list[Any]:
    packets = []
    for number, (start, duration, text) in enumerate(track.lines):
        raw = text.encode()
        if track.codec == "mov_text":
            raw = struct.pack(">H", len(raw)) + raw
        if track.codec == "ass":
            raw = f"{number},0,Default,,0,0,0,,{text}".encode()
        packet = av.Packet(PGS if track.codec == "hdmv_pgs_subtitle" else raw)
        packet.stream, packet.time_base = stream, MS
        packet.pts = packet.dts = start
        packet.duration = duration
        packets.append(packet)
    return packets


def begun_later(data: bytes, seconds: Fraction) -> bytes:
    """An mp4 without its first seconds: an edit list hides them, back to a key frame, and nothing is encoded anew."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "later.mp4"
        with av.open(io.BytesIO(data)) as source, av.open(str(path), "w", format="mp4") as output:
            copies = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in source.streams}
            for packet in source.demux():
                if packet.size:
                    shift = round(seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = copies[packet.stream.index]
                    output.mux(packet)
        return path.read_bytes()


def jpeg() -> bytes:
    """A small picture."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), (200, 60, 40), np.uint8), "rgb24")
    return b"".join(bytes(packet) for packet in encoder.encode(frame.reformat(format="yuvj420p")) + encoder.encode())


@dataclass
class Seen:
    """The facts of a file, as plain PyAV gives them."""

    tracks: list[tuple[str, str, str, str, Disposition]] = field(default_factory=list)
    """(kind, codec, language, title, dispositions) of the tracks of pictures, sound and subtitles."""
    texts: list[list[Line]] = field(default_factory=list)
    """The lines of each text track, without markup."""
    layouts: list[str] = field(default_factory=list)
    chapters: list[tuple[int, int, str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    fonts: list[bytes] = field(default_factory=list)
    covers: list[bytes] = field(default_factory=list)
    packets: dict[int, list[bytes]] = field(default_factory=dict)
    """Of each track of subtitles that is no text."""
    starts: list[Fraction] = field(default_factory=list)
    """Of each track of pictures and sound, the first that is shown or heard."""


def see(path: Path) -> Seen:
    """Read a whole file."""
    seen = Seen()
    with av.open(io.BytesIO(path.read_bytes())) as file:
        seen.tags = {key.lower(): value for key, value in file.metadata.items()}
        for chapter in file.chapters():
            start, end = (round(chapter[name] * chapter["time_base"] / MS) for name in ("start", "end"))
            seen.chapters.append((start, end, chapter["metadata"].get("title", "")))
        lines: dict[int, list[Line]] = {}
        for stream in file.streams:
            if stream.type == "attachment":
                seen.fonts.append(stream.data)
            if stream.type not in ("video", "audio", "subtitle") or stream.disposition & Disposition.attached_pic:
                continue
            about = stream.metadata
            title, codec = about.get("title") or about.get("name", ""), stream.codec_context.codec.canonical_name
            seen.tracks.append((stream.type, codec, about.get("language", ""), title, stream.disposition))
            if stream.type == "audio":
                seen.layouts.append(stream.codec_context.layout.name)
            if stream.type != "subtitle":
                seen.starts.append(stream.start_time * stream.time_base)
        for packet in file.demux():
            if packet.size and packet.stream.disposition & Disposition.attached_pic:
                seen.covers.append(bytes(packet))
            if packet.size and packet.stream.type == "subtitle":
                _see_text(packet, lines, seen.packets)
        seen.texts = list(lines.values())
    return seen


def _see_text(packet: Any, lines: dict[int, list[Line]], others: dict[int, list[bytes]]) -> None:
    stream = packet.stream
    if stream.codec_context.codec.canonical_name not in _TEXT:
        others.setdefault(stream.index, []).append(bytes(packet))
        return
    found = stream.codec_context.decode2(packet)
    for text in [] if found is None else [rect.dialogue.decode() for rect in found]:
        start, duration = (round(number * packet.time_base / MS) for number in (packet.pts, packet.duration))
        lines.setdefault(stream.index, []).append((start, duration, text))


def tones(path: Path, track: int = 0) -> list[int]:
    """The pitch of each channel of an audio track, Hz."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler("flt", None, 48000)
        parts, count = [], 0
        for frame in file.decode(audio=track):
            count = frame.layout.nb_channels
            parts += [resampled.to_ndarray().reshape(-1, count) for resampled in resampler.resample(frame)]
    samples = np.concatenate(parts)[4800:43200]
    peaks = np.abs(np.fft.rfft(samples, axis=0)).argmax(axis=0)
    return [round(float(peak) * 48000 / len(samples)) for peak in peaks]


def samples(path: Path) -> list[bytes]:
    """All samples of the first audio track, each of 32 bits."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler("s32", None, None)
        found = [resampled for frame in file.decode(audio=0) for resampled in resampler.resample(frame)]
    return [b"".join(frame.to_ndarray().tobytes() for frame in found)]
