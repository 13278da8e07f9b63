"""The facts of a video file besides its frames and sound, read once for single and chunked encoding alike.

The container's facts come from its header, those of the pictures from the first decoded frames, since a file may carry
them in either place. Requires PyAV (`av`).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.video_picture import FieldOrder, Mastering, Picture, turn_of
from mesh.splitting.media import Decoding, MediaFault, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.format import VideoFormat
    from av.video.stream import VideoStream

#: Frames that are decoded for facts: some, such as captions, are not on every frame.
_LOOKED_AT = 4
#: FFmpeg's AVFieldOrder of interlaced video, by the field that is shown first. The last two name different fields for
#: storage and display, and programs disagree which is which: the flags of the frames go before them; without flags they
#: mean what FFmpeg's decoders of raw video take them for.
_FIELD_ORDERS: dict[int, FieldOrder] = {2: "top_first", 3: "bottom_first", 4: "top_first", 5: "bottom_first"}
_CERTAIN_ORDERS = (2, 3)
#: FFmpeg's AVStereo3DType and the number that H.264 has for it: side by side, top and bottom, alternating frames, chess
#: board, lines and columns.
_PACKINGS = {1: 3, 2: 4, 3: 5, 4: 0, 6: 2, 7: 1}
#: Matrix and range, as FFmpeg numbers them, of the pictures that RGB is converted to.
_BT709 = (1, 1)
#: The side data of frames that the encoders here don't keep, or not all: FFmpeg's name and ours.
EXTRAS = {
    "A53_CC": "closed captions",
    "SPHERICAL": "spherical projection",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "ICC_PROFILE": "ICC profile",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient viewing environment",
    "S12M_TIMECODE": "timecode",
}


#: Names of handlers that programs write by themselves.
_HANDLERS = re.compile(r"handler|core media|^iso media|gpac|l-smash|mainconcept|^apple|^(video|sound|audio)$", re.I)


@dataclass(frozen=True)
class Samples:
    """What the stored pictures consist of."""

    bits: int = 8
    """Per sample."""
    chroma: str = "4:2:0"
    """4:2:0, 4:2:2, 4:4:4, RGB, grey, or the chroma planes' share of the width and height."""
    alpha: bool = False


@dataclass(frozen=True)
class StreamFacts:
    """One stream of a file."""

    index: int
    kind: str
    """video, audio, subtitle, data or attachment"""
    codec: str
    """FFmpeg's name; "" when unknown."""
    language: str = ""
    title: str = ""
    dispositions: tuple[str, ...] = ()
    """default, forced, comment, attached_pic, … in FFmpeg's order"""
    layout: str = ""
    """Of audio: stereo, 5.1(side), …"""
    channels: int = 0
    rate: int = 0
    """Of audio: samples per second."""
    size: tuple[int, int] = (0, 0)
    """Of pictures: width and height, pixels; zeros when unknown."""
    readable: bool = True
    """Whether FFmpeg has a decoder for it, and knows the channels and the rate of audio."""
    hidden: bool = False
    """A helper track of the container, such as the one with the titles of the chapters."""

    @property
    def cover(self) -> bool:
        """Whether it is a picture that stands for the file."""
        return "attached_pic" in self.dispositions

    @property
    def name(self) -> str:
        """ "track 3 (eng)", counting from 1, for messages."""
        return f"track {self.index + 1}" + (f" ({self.language})" if self.language else "")


@dataclass(frozen=True)
class Chapter:
    """One chapter; times in seconds of the source."""

    start: Fraction
    end: Fraction
    title: str


@dataclass(frozen=True)
class Facts:
    """The facts of one file."""

    container: str
    """FFmpeg's name of the format."""
    picture: Picture
    samples: Samples
    start: Fraction
    """The time in the file that becomes 0 in the result, seconds: the first shown picture or sound, which may be
    negative (a clock that wraps to 0 is counted from below 0)."""
    video: int
    """Index of the stream that is encoded."""
    streams: tuple[StreamFacts, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    """Title, dates, place and others of the whole file."""
    extras: tuple[str, ...] = ()
    """What else the first frames carry, with the names of the table in `media_table`."""
    timecode: str = ""
    """hh:mm:ss:ff of the first picture, from the container."""
    images: tuple[tuple[int, bytes], ...] = ()
    """(index of the stream, contents) of the cover pictures."""

    def of_kind(self, kind: str) -> tuple[StreamFacts, ...]:
        """The visible streams of one kind."""
        return tuple(stream for stream in self.streams if stream.kind == kind and not stream.hidden)


def read_facts(source: bytes | Path) -> Facts:
    """Read the facts of a file. Raises: MediaFault, also when it has no frame that can be decoded; OSError."""
    with opened(source) as (container, stream):
        order = stream.codec_context.field_order
        reading = Decoding(container, stream, 1)
        frames: list[Any] = []
        covers = [cover for cover in container.streams.video if _is_cover(cover)]
        images: dict[int, bytes] = {}
        for packet in reading.packets(*covers):
            if packet.stream in covers:
                if packet.size:
                    images.setdefault(packet.stream.index, bytes(packet))
                continue
            frames += reading.frames(packet)
            if len(frames) >= _LOOKED_AT:
                break
        if not frames:
            raise MediaFault("has no frame that can be decoded")
        picture, extras = _picture(frames, stream, order)
        return Facts(
            container=container.format.name,
            picture=picture,
            samples=_samples(frames[0].format, stream.metadata.get("alpha_mode", "") == "1"),
            start=_start(container, frames[0]),
            video=stream.index,
            streams=tuple(_stream(found) for found in container.streams),
            chapters=tuple(_chapters(container)),
            tags=tuple(sorted(container.metadata.items())),
            extras=extras,
            timecode=_timecode(container),
            images=tuple(sorted(images.items())),
        )


def _timecode(container: InputContainer) -> str:
    found = (stream.metadata.get("timecode") or stream.metadata.get("TIMECODE") for stream in container.streams)
    return next((timecode for timecode in found if timecode), container.metadata.get("timecode", ""))


def _samples(pixels: VideoFormat, beside: bool) -> Samples:
    """`beside`: the file has the transparency of a WebM, which its decoders here don't return."""
    components = pixels.components
    alpha = any(component.is_alpha for component in components)
    name = "RGB"
    if not pixels.is_rgb:
        width, height = pixels.chroma_width(64), pixels.chroma_height(64)
        known = {(32, 32): "4:2:0", (32, 64): "4:2:2", (64, 64): "4:4:4"}
        grey = len(components) - alpha < 3
        name = "grey" if grey else known.get((width, height), f"{width}/64 x {height}/64")
    return Samples(max((component.bits for component in components), default=8), name, alpha or beside)


def _start(container: InputContainer, frame: Any) -> Fraction:
    """The earliest time of all pictures and sound that are shown or heard: what only primes a decoder lies before."""
    streams = (*container.streams.video, *container.streams.audio)
    starts = [
        stream.start_time * stream.time_base
        for stream in streams
        if stream.start_time is not None and stream.time_base and not _is_cover(stream)
    ]
    if frame.pts is not None and frame.time_base is not None:
        starts.append(frame.pts * frame.time_base)
    return min(starts, default=Fraction(0))


def _is_cover(stream: Stream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _picture(frames: list[Any], stream: VideoStream, order: int) -> tuple[Picture, tuple[str, ...]]:
    first = frames[0]
    colour = (int(first.color_primaries), int(first.color_trc), int(first.colorspace), int(first.color_range))
    side: dict[str, bytes] = {}
    for frame in frames:
        side = {**_side_data(frame), **side}
    matrix = struct.unpack("=9i", side["DISPLAYMATRIX"][:36]) if "DISPLAYMATRIX" in side else None
    turn = turn_of(matrix) if matrix else "none"
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if first.format.is_rgb:
        colour = (colour[0], colour[1], *_BT709)
    picture = Picture(
        turn=turn or "none",
        matrix=None if turn else matrix,
        aspect=f"{aspect.numerator}/{aspect.denominator}" if aspect > 0 else "1/1",
        fields=_fields(frames, order),
        colour=colour,
        mastering=_mastering(side.get("MASTERING_DISPLAY_METADATA", b"")),
        light=_light(side.get("CONTENT_LIGHT_LEVEL", b"")),
        packing=_packing(side.get("STEREO3D", b"")),
    )
    extras = {name for kind, name in EXTRAS.items() if kind in side}
    if picture.packing is None and any(side.get("STEREO3D", b"")[:4]):
        extras.add("stereoscopic layout")
    return picture, tuple(sorted(extras))


def _side_data(frame: Any) -> dict[str, bytes]:
    try:
        return {data.type.name: bytes(data) for data in frame.side_data}
    except ValueError:  # a type that this version of PyAV doesn't know hides the others
        return {}


def _fields(frames: list[Any], order: int) -> FieldOrder:
    """The order of the fields, from the number that the container or the stream gives and the flags of the frames."""
    interlaced = next((frame for frame in frames if frame.interlaced_frame), None)
    if order in _CERTAIN_ORDERS or (interlaced is None and order in _FIELD_ORDERS):
        return _FIELD_ORDERS[order]
    if interlaced is None:
        return "progressive"
    return "top_first" if _shows_top_first(interlaced) else "bottom_first"


def _shows_top_first(frame: Any) -> bool:
    """PyAV has no property for this flag, but FFmpeg's filter `select` can test it."""
    from av.error import BlockingIOError as NeedsInput
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    graph.link_nodes(source, graph.add("select", r"eq(interlace_type\,TOPFIRST)"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    try:
        graph.vpull()
    except NeedsInput:
        return False
    return True


def _mastering(data: bytes) -> Mastering | None:
    """FFmpeg's AVMasteringDisplayMetadata: ten fractions, and whether the primaries and the luminance are known."""
    if len(data) < 88:
        return None
    numbers = struct.unpack("=22i", data[:88])
    if not numbers[20] or not numbers[21] or not all(numbers[1:20:2]):
        return None
    values = [Fraction(numbers[at], numbers[at + 1]) for at in range(0, 20, 2)]
    points = [(round(values[at] * 50_000), round(values[at + 1] * 50_000)) for at in range(0, 8, 2)]
    least, greatest = round(values[8] * 10_000), round(values[9] * 10_000)
    return Mastering(red=points[0], green=points[1], blue=points[2], white=points[3], luminance=(greatest, least))


def _light(data: bytes) -> tuple[int, int] | None:
    """FFmpeg's AVContentLightMetadata; zeros mean unknown."""
    if len(data) < 8:
        return None
    most, average = struct.unpack("=2I", data[:8])
    return (most, average) if most or average else None


def _packing(data: bytes) -> int | None:
    """FFmpeg's AVStereo3D: the type, and whether the eyes are exchanged, which H.264's encoder can't say."""
    if len(data) < 8:
        return None
    kind, flags = struct.unpack("=2i", data[:8])
    return None if flags & 1 else _PACKINGS.get(kind)


def _stream(stream: Any) -> StreamFacts:
    from av.stream import Discard

    context = stream.codec_context
    audio = stream.type == "audio" and context is not None
    codec = context.codec.canonical_name if context is not None else getattr(stream, "name", None) or ""
    language = stream.metadata.get("language", "")
    return StreamFacts(
        index=stream.index,
        kind=stream.type,
        codec=codec,
        language="" if language == "und" else language,
        title=_title(stream.metadata),
        dispositions=tuple(flag.name or "" for flag in stream.disposition),
        layout=context.layout.name if audio else "",
        channels=context.layout.nb_channels if audio else 0,
        rate=context.sample_rate if audio else 0,
        size=(context.width, context.height) if stream.type == "video" and context is not None else (0, 0),
        readable=context is not None and not (audio and not (context.layout.nb_channels and context.sample_rate)),
        hidden=stream.type == "data" and (stream.discard == Discard.all or "timecode" in stream.metadata),
    )


def _title(metadata: dict[str, str]) -> str:
    """A track's title: in a QuickTime file its name, or the name of its handler where a person chose that."""
    handler = metadata.get("handler_name", "")
    chosen = "" if _HANDLERS.search(handler) or not handler.isprintable() else handler
    return metadata.get("title") or metadata.get("name") or chosen


def _chapters(container: InputContainer) -> list[Chapter]:
    return [
        Chapter(
            chapter["start"] * chapter["time_base"],
            chapter["end"] * chapter["time_base"],
            chapter["metadata"].get("title", ""),
        )
        for chapter in container.chapters()
        if chapter["time_base"] is not None
    ]
