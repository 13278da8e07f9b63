"""Where the frames to encode come from: the payload's file, or the test picture; shaped as they are to be encoded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.kinds.base import BlobInput
from mesh.kinds.video import DEFAULT_FPS, Codec, VideoPayload, fit
from mesh.splitting.media import Decoding, MediaFault, duration_s, opened, rate_of, start_of
from node.executor.context import Context, InputFault
from node.workloads.video import test_pattern

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

FIELD = "video"


@dataclass
class Source:
    """A video that is about to be read, once."""

    items: Iterator[Any]
    """Shaped frames in the order they are shown, and packets of `tracks` in between."""
    rate: Fraction
    expected: float
    """How many frames there will be, as far as one can tell; 0: nobody knows."""
    pixel_format: str
    start: Fraction = Fraction(0)
    tracks: tuple[Any, ...] = ()
    """Streams of sound."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For the result."""


@contextmanager
def source_of(
    payload: VideoPayload, context: Context, codec: Codec, shape: Shape | None = None, sound: bool = True
) -> Generator[Source, None, None]:
    """The payload's video. Raises: InputFault, also while it is read."""
    try:
        if payload.video is None:
            yield _test_picture(payload, shape)
        else:
            # A blob is a file already: a long video is never whole in memory.
            blob = payload.video.blob if isinstance(payload.video, BlobInput) else ""
            data = context.blobs.get(blob) or context.read(payload.video, FIELD)
            with opened(data, part=payload.part is not None) as (container, stream):
                yield _file(payload, context, codec, container, stream, sound, shape)
    except MediaFault as fault:
        raise InputFault(FIELD, str(fault)) from None


def stamp_of(frame: VideoFrame) -> tuple[int, Fraction]:
    """(presentation time, its time base) of a frame that has both. Raises: MediaFault."""
    if frame.pts is None or frame.time_base is None:
        raise MediaFault("has frames without a time")
    return frame.pts, frame.time_base


@dataclass
class Shape:
    """Turns, scales and converts frames; what it does is settled by the first one."""

    payload: VideoPayload
    pixel_format: str
    rate: Fraction | None = None
    """Frames a second to make by dropping and repeating; None leaves them."""
    threads: int = 1
    aspect: Fraction = Fraction(1)
    """Width of a pixel over its height: first of the source, from the first frame on of the result."""
    _graph: Any = None

    def put(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """What comes out when `frame` goes in; None is the end."""
        from av.error import BlockingIOError as Starved
        from av.error import EOFError as Ended

        if self._graph is None:
            if frame is None:
                return []
            self._graph = self._make(frame)
        self._graph.vpush(frame)
        made = []
        while True:
            try:
                made.append(self._graph.vpull())
            except (Starved, Ended):
                return made

    def _make(self, frame: VideoFrame) -> Any:
        from av.filter import Graph

        part = self.payload.part
        turn = part.rotation if part else round(frame.rotation / 90) * 90 % 360
        size = (frame.width, frame.height) if turn in (0, 180) else (frame.height, frame.width)
        width, height = fit(size, self.payload.box)
        upright = self.aspect if turn in (0, 180) else 1 / self.aspect
        self.aspect = (upright * size[0] * height / (size[1] * width)).limit_denominator(32_767)
        steps: list[tuple[str, str]] = {
            0: [], 90: [("transpose", "cclock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "clock")],
        }[turn]  # fmt: skip
        if self.rate is not None:
            steps = [*steps, ("fps", f"{self.rate.numerator}/{self.rate.denominator}")]
        steps = [*steps, ("scale", f"{width}:{height}:flags=bicubic"), ("format", self.pixel_format)]
        graph = Graph()
        graph.threads = self.threads
        # Matrix and range must be told to the graph: without them it hands on frames that have none.
        _, base = stamp_of(frame)
        buffer = graph.add(
            "buffer",
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
            f"time_base={base.numerator}/{base.denominator}:colorspace={frame.colorspace:d}:"
            f"range={frame.color_range:d}",
        )
        chain = [buffer, *(graph.add(name, words) for name, words in steps), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        return graph


def _test_picture(payload: VideoPayload, shape: Shape | None) -> Source:
    rate = Fraction(payload.fps or DEFAULT_FPS).limit_denominator(1001)
    count = max(1, round(payload.test_seconds * rate))
    frames = test_pattern.frames(payload.test_size, rate, count)
    items = frames if shape is None or shape.pixel_format == "yuv420p" else _through(shape, frames)
    return Source(items, rate, count, "yuv420p", facts={"source": "test picture"})


def _through(shape: Shape, frames: Iterator[Any]) -> Iterator[Any]:
    for frame in frames:
        yield from shape.put(frame)
    yield from shape.put(None)


def _file(
    payload: VideoPayload,
    context: Context,
    codec: Codec,
    container: InputContainer,
    stream: VideoStream,
    sound: bool,
    shape: Shape | None,
) -> Source:
    part = payload.part
    rate = Fraction(payload.fps).limit_denominator(1001) if payload.fps else rate_of(stream)
    start = Fraction(part.first) * Fraction(part.time_base) if part else start_of(container)
    length = duration_s(container, stream)
    length = min(length, payload.seconds) if payload.seconds else length
    context_ = stream.codec_context
    deep = max((one.bits for one in context_.format.components), default=8) > 8 if context_.format else False
    pixel_format = payload.pixel_format or ("yuv420p10le" if deep and codec != "h264" else "yuv420p")
    tracks = tuple(container.streams.audio) if sound and payload.audio == "keep" and part is None else ()
    shape = shape or Shape(payload, pixel_format)
    shape.threads = context.cores
    shape.rate = rate if payload.fps else None
    shape.aspect = Fraction(stream.sample_aspect_ratio or 1)
    facts = {
        "source": "file",
        "source_codec": stream.codec_context.codec.canonical_name,
        "source_width": context_.width,
        "source_height": context_.height,
    }
    reading = _Reading(payload, start, Decoding(container, stream, context.cores), rate)
    items = reading.items(shape, stream, tracks)
    if part:
        rate = Fraction(part.rate)
    return Source(items, rate, float(length * rate), pixel_format, start, tracks, facts)


class _Reading:
    """Reads one file to its end, or as far as it is wanted."""

    def __init__(self, payload: VideoPayload, start: Fraction, decoding: Decoding, rate: Fraction) -> None:
        self._payload, self._start, self._decoding, self._rate = payload, start, decoding, rate
        self._last: int | None = None

    def items(self, shape: Shape, stream: VideoStream, tracks: tuple[Any, ...]) -> Iterator[Any]:
        for packet in self._decoding.packets(*tracks):
            if packet.stream is not stream:
                yield packet
                continue
            for frame in self._decoding.frames(packet):
                self._restamp(frame)
                if self._late(frame):
                    # What is after it can't be said to be whole: nobody asked for it.
                    yield from shape.put(None)
                    return
                if self._counts(frame):
                    yield from shape.put(self._moved(frame))
        if self._payload.part is None:
            self._decoding.check_whole()
        yield from shape.put(None)

    def _restamp(self, frame: VideoFrame) -> None:
        """Encoders want times that rise: a frame without one, or with an old one, comes a frame's time later."""
        base = frame.time_base
        if base is None:
            raise MediaFault("has frames without a time")
        if self._last is not None and (frame.pts is None or frame.pts <= self._last):
            frame.pts = self._last + max(1, round(1 / (self._rate * base)))
        elif frame.pts is None:
            frame.pts = round(self._start / base)
        self._last = frame.pts

    def _counts(self, frame: VideoFrame) -> bool:
        part, (pts, base) = self._payload.part, stamp_of(frame)
        return part is None or part.holds(pts * base)

    def _late(self, frame: VideoFrame) -> bool:
        span, (pts, base) = self._payload.span, stamp_of(frame)
        return span is not None and pts * base - self._start >= span

    def _moved(self, frame: VideoFrame) -> VideoFrame:
        pts, base = stamp_of(frame)
        frame.pts = pts - round(self._start / base)
        part = self._payload.part
        if part is not None:
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = part.colour
        return frame
