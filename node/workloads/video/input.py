"""The source of the frames to encode, the payload's file or the test picture, filtered as the encoder needs them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.kinds.base import BlobInput
from mesh.kinds.video import DEFAULT_FPS, Codec, Part, VideoPayload
from mesh.kinds.video_picture import Picture
from mesh.splitting.frame_times import FrameTimes
from mesh.splitting.media import Decoding, MediaFault, duration_s, opened, rate_of
from mesh.splitting.media_facts import Facts, read_facts
from mesh.splitting.recordings import Mending
from mesh.splitting.video_compare import Samples
from node.executor.context import Context, InputFault
from node.workloads.video import test_pattern
from node.workloads.video.frame_filter import FrameFilter, stamp_of
from node.workloads.video.part import PartReader, opened_part

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

FIELD = "video"


@dataclass
class Source:
    """A video, to be read once."""

    items: Iterator[Any]
    """Filtered frames in presentation order, interleaved with packets of the audio and subtitles of `container`."""
    rate: Fraction
    """Frames per second."""
    expected: float
    """Estimated number of frames; 0: unknown."""
    pixel_format: str
    start: Fraction = Fraction(0)
    """Time in the source that becomes 0 in the result, seconds."""
    picture: Picture = field(default_factory=Picture)
    container: InputContainer | None = None
    mending: Mending | None = None
    """Of a recording."""
    known: Facts | None = None
    """The facts of a whole file."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields for the result."""
    samples: Samples | None = None
    """Of a part that is to be compared with its encoding; filled while `items` are read."""


@contextmanager
def source_of(
    payload: VideoPayload, context: Context, codec: Codec, frame_filter: FrameFilter | None = None, sound: bool = True
) -> Generator[Source, None, None]:
    """The payload's video; `sound`: with the packets of its audio and subtitles.

    Raises: InputFault, also while it is read.
    """
    try:
        if payload.video is None:
            yield _test_picture(payload, frame_filter)
        else:
            # A blob is a file already, so that a long video is not loaded into memory.
            blob = payload.video.blob if isinstance(payload.video, BlobInput) else ""
            data = context.blobs.get(blob) or context.read(payload.video, FIELD)
            if payload.part is not None:
                with opened_part(data, context.cores) as reader:
                    yield _part(payload, payload.part, context, codec, reader, frame_filter)
                return
            facts = read_facts(data)
            with opened(data) as (container, stream):
                yield _file(payload, context, codec, container, stream, facts, sound, frame_filter)
    except MediaFault as fault:
        raise InputFault(FIELD, str(fault)) from None


def _test_picture(payload: VideoPayload, frame_filter: FrameFilter | None) -> Source:
    rate = Fraction(payload.fps or DEFAULT_FPS).limit_denominator(1001)
    count = max(1, round(payload.test_seconds * rate))
    frames = test_pattern.frames(payload.test_size, rate, count)
    items = frames
    if frame_filter is not None and frame_filter.pixel_format != "yuv420p":
        items = _filtered(frame_filter, frames)
    return Source(items, rate, count, "yuv420p", facts={"source": "test picture"})


def _filtered(frame_filter: FrameFilter, frames: Iterator[Any]) -> Iterator[Any]:
    for frame in frames:
        yield from frame_filter.put(frame)
    yield from frame_filter.put(None)


def _file(
    payload: VideoPayload,
    context: Context,
    codec: Codec,
    container: InputContainer,
    stream: VideoStream,
    known: Facts,
    sound: bool,
    frame_filter: FrameFilter | None,
) -> Source:
    rate = Fraction(payload.fps).limit_denominator(1001) if payload.fps else rate_of(stream)
    start, picture = known.start, known.picture
    length = duration_s(container, stream)
    length = min(length, payload.seconds) if payload.seconds else length
    decoder = stream.codec_context
    pixel_format = _pixel_format(payload, codec, decoder)
    others = (*container.streams.audio, *container.streams.subtitles) if sound else ()
    frame_filter = frame_filter or FrameFilter(payload, pixel_format)
    frame_filter.threads = context.cores
    frame_filter.rate = rate if payload.fps else None
    frame_filter.picture = picture
    decoding = Decoding(container, stream, context.cores)
    reader = _Reader(payload, start, decoding, rate)
    items, facts = reader.items(frame_filter, stream, others), _decoder_facts(decoder)
    return Source(
        items, rate, float(length * rate), pixel_format, start, picture, container, decoding.mending, known, facts
    )


def _part(
    payload: VideoPayload,
    part: Part,
    context: Context,
    codec: Codec,
    reader: PartReader,
    frame_filter: FrameFilter | None,
) -> Source:
    pixel_format = _pixel_format(payload, codec, reader.decoder)
    frame_filter = frame_filter or FrameFilter(payload, pixel_format)
    frame_filter.threads, frame_filter.picture = context.cores, part.picture
    frames, samples = reader.frames(Fraction(part.time_base), part.compare), None
    if part.compare:
        samples = Samples(part.picture.turn)
        frames = samples.of(frames)
    items = _filtered(frame_filter, frames)
    facts = _decoder_facts(reader.decoder)
    count = reader.header.frames
    return Source(items, Fraction(part.rate), count, pixel_format, picture=part.picture, facts=facts, samples=samples)


def _pixel_format(payload: VideoPayload, codec: Codec, decoder: VideoCodecContext) -> str:
    """The format to encode: the requested one, or 10 bits for a source of more than 8 where the codec is not H.264."""
    bits = max((component.bits for component in decoder.format.components), default=8) if decoder.format else 8
    return payload.pixel_format or ("yuv420p10le" if bits > 8 and codec != "h264" else "yuv420p")


def _decoder_facts(decoder: VideoCodecContext) -> dict[str, Any]:
    return {
        "source": "file",
        "source_codec": decoder.codec.canonical_name,
        "source_width": decoder.width,
        "source_height": decoder.height,
    }


class _Reader:
    """Reads a file to its end, or to the end of the requested range."""

    def __init__(self, payload: VideoPayload, start: Fraction, decoding: Decoding, rate: Fraction) -> None:
        self._payload, self._start, self._decoding = payload, start, decoding
        self._times = FrameTimes(rate, start)

    def items(self, frame_filter: FrameFilter, stream: VideoStream, others: tuple[Any, ...]) -> Iterator[Any]:
        """See `Source.items`. Raises: MediaFault."""
        for packet in self._decoding.packets(*others):
            if packet.stream is not stream:
                yield packet
                continue
            for frame in self._decoding.frames(packet):
                self._times.stamp(frame)
                if self._late(frame):
                    # The rest of the file is not requested, so it is not read and not checked for truncation.
                    yield from frame_filter.put(None)
                    return
                yield from frame_filter.put(self._shifted(frame))
        self._decoding.check_whole()
        yield from frame_filter.put(None)

    def _late(self, frame: VideoFrame) -> bool:
        span, (pts, base) = self._payload.span, stamp_of(frame)
        return span is not None and pts * base - self._start >= span

    def _shifted(self, frame: VideoFrame) -> VideoFrame:
        """The frame with its time relative to the start."""
        pts, base = stamp_of(frame)
        frame.pts = pts - round(self._start / base)
        return frame
