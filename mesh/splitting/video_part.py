"""The file of one part of a video: coded packets as the demuxer returned them, and what their decoder needs.

No media container carries every codec: each has its own table of codecs and its own rules for times, palettes and
fields. A part carries the decoder's parameters and the packets unchanged, so it decodes like the whole file. For each
packet it lists the times of the frames that belong to the part; frames of other parts have none and are dropped.

Format: MAGIC, then a header and the packets, each as a length (4 bytes, big-endian) and MessagePack. Requires PyAV.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

import msgspec

from mesh.decoder import Decoder, Unreadable
from mesh.kinds.video import MAX_PIXELS
from mesh.splitting.media import VIDEO_CODECS, MediaFault

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

Lasting = Literal["palette", "new_extradata"]
Record = TypeVar("Record")

MAGIC = b"queztl part 1\n"
CONTENT_TYPE = "application/x-queztl-video-part"
#: FFmpeg's limit.
_MAX_REORDER = 16
#: A larger record is refused before it is read into memory: an uncompressed 8K picture of 16 bits has 285 MB.
MAX_RECORD = 320_000_000
#: Side data that stays in force until it is replaced, with FFmpeg's numbers: a part repeats the last one at its start.
LASTING: dict[Lasting, int] = {"palette": 0, "new_extradata": 1}


class Coding(msgspec.Struct, frozen=True):
    """The parameters of a decoder."""

    decoder: str
    """FFmpeg's name."""
    tag: str
    extradata: bytes
    width: int
    height: int
    pixel_format: str
    bits: int
    """Bits per coded sample."""
    reorder: int
    """Number of frames that the decoder holds back for reordering."""
    colour: tuple[int, int, int, int]
    """Primaries, transfer, matrix and range according to the container, as FFmpeg numbers them."""


class Header(msgspec.Struct, frozen=True):
    """The first record."""

    coding: Coding
    packets: int
    frames: int
    """Number of frames of the part."""


class Coded(msgspec.Struct, array_like=True):
    """One packet."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    side: list[tuple[Lasting, bytes]] = []
    times: list[int] = []
    """Times of its frames that belong to the part, in the order of output; units of the source's time base, from the
    first frame of the part."""


class Mark:
    """Ties a frame to its packet, as `opaque` of both.

    PyAV keeps these objects by their identity and drops each with its first holder, so every packet needs its own.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def marked(frame: Any) -> int:
    """The number of the packet that a frame comes from; -1: unknown."""
    mark = frame.opaque
    return mark.number if isinstance(mark, Mark) else -1


def coding_of(stream: VideoStream) -> Coding:
    """The parameters of a stream's decoder."""
    context = stream.codec_context
    try:
        tag = context.codec_tag
    except UnicodeDecodeError:
        tag = "\0\0\0\0"  # PyAV reads ASCII only; the trial of the first part shows whether the decoder needs it
    colour = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    return Coding(
        context.codec.name, tag, context.extradata or b"", context.width, context.height, context.pix_fmt or "",
        context.bits_per_coded_sample, context.reorder_depth, colour,
    )  # fmt: skip


def decoder_of(coding: Coding, threads: int) -> VideoCodecContext:
    """A decoder that is not opened yet. Raises: MediaFault for parameters that it can't have."""
    from av.codec import CodecContext
    from av.video.codeccontext import VideoCodecContext

    if coding.decoder not in VIDEO_CODECS.split(","):
        raise MediaFault(f"has an unsupported video codec ({coding.decoder[:32]})")
    if not 0 < coding.width * coding.height <= MAX_PIXELS:
        raise MediaFault(f"has {coding.width} x {coding.height} pixels; the limit is {MAX_PIXELS // 1_000_000} million")
    try:
        context = CodecContext.create(coding.decoder, "r")
        assert isinstance(context, VideoCodecContext)
        context.codec_tag = coding.tag
        context.width, context.height = coding.width, coding.height
        if coding.pixel_format:
            context.pix_fmt = coding.pixel_format
        context.bits_per_coded_sample, context.reorder_depth = coding.bits, coding.reorder
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = coding.colour
    except (ValueError, OverflowError):
        raise MediaFault("is not a readable part of a video: its decoder refuses the parameters") from None
    if coding.extradata:
        context.extradata = coding.extradata
    context.options = {"max_pixels": str(MAX_PIXELS)}
    context.thread_count, context.thread_type = threads, "AUTO"
    context.copy_opaque = True
    return context


def packet_of(coded: Coded, opaque: object) -> Any:
    """A packet for the decoder; its frames have the same `opaque`."""
    from av.packet import Packet, PacketSideData

    packet = Packet(len(coded.data))  # from bytes, it would lack the zeros after its end that decoders read
    packet.update(coded.data)
    packet.pts, packet.dts, packet.duration = coded.pts, coded.dts, coded.duration
    packet.is_keyframe, packet.opaque = coded.key, opaque
    for kind, content in coded.side:
        side: Any = PacketSideData(LASTING[kind], len(content))  # pyrefly: ignore[bad-argument-count]
        side.update(content)
        packet.set_sidedata(side)
    return packet


def coded_of(packet: Any) -> Coded:
    """The content of a packet of the demuxer."""
    side = [(found.data_type, bytes(found)) for kind in LASTING if (found := packet.get_sidedata(kind))]
    return Coded(bytes(packet), packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, side)


def write(path: Path, header: Header, packets: Iterable[Coded]) -> None:
    """Write a part. Raises: OSError."""
    with path.open("wb") as file:
        file.write(MAGIC)
        for record in (header, *packets):
            content = msgspec.msgpack.encode(record)
            file.write(len(content).to_bytes(4, "big"))
            file.write(content)


def _header_fault(header: Header) -> str:
    coding = header.coding
    numbers = (coding.width, coding.height, coding.bits, coding.reorder, header.packets, header.frames, *coding.colour)
    if not all(0 <= number < 2**31 for number in numbers) or coding.reorder > _MAX_REORDER:
        return "it has a number out of range"
    return "" if len(coding.tag) == 4 and coding.tag.isascii() else "its tag has no four characters"


def _packet_fault(coded: Coded) -> str:
    times = (coded.pts or 0, coded.dts or 0, coded.duration, *coded.times)
    return "" if all(-(2**62) < time < 2**62 for time in times) else "it has a time out of range"


_header = Decoder[Header](Header, "header of a part", _header_fault)
_packet = Decoder[Coded](Coded, "packet of a part", _packet_fault)


def read_header(file: BinaryIO) -> Header:
    """The header of a part. Raises: MediaFault."""
    if file.read(len(MAGIC)) != MAGIC:
        raise MediaFault("is not a readable part of a video")
    return _record(file, _header)


def read_packets(file: BinaryIO, header: Header) -> Iterator[Coded]:
    """The packets after the header. Raises: MediaFault."""
    for _ in range(header.packets):
        yield _record(file, _packet)


def _record(file: BinaryIO, decode: Decoder[Record]) -> Record:
    size = int.from_bytes(file.read(4), "big")
    content = file.read(size) if 0 < size <= MAX_RECORD else b""
    if not size or len(content) != size:
        raise MediaFault("is a part of a video that is truncated or damaged")
    record = decode(content)
    if isinstance(record, Unreadable):
        raise MediaFault("is a part of a video that is damaged")
    return record
