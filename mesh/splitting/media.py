"""Opens untrusted video files safely.

FFmpeg also reads playlists, session descriptions and lists of files, and opens the files that they name. This module
passes FFmpeg bytes or an open file, never a name; it allows only the listed demuxers and decoders, disables all
protocols, and refuses every attempt to open a second file. It checks the picture size before it decodes a frame.
Requires PyAV (`av`).
"""

from __future__ import annotations

import errno
import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import MAX_PIXELS, MAX_SECONDS
from mesh.splitting.recordings import LEAST_WHOLE, Mending, is_recording

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

#: Comma-separated lists, as FFmpeg's whitelists take them.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,ivf,obu,h264,hevc,m4v,mpegvideo,yuv4mpegpipe,dv,"
    "mxf"
)
VIDEO_CODECS = (
    "h264,hevc,libdav1d,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mpeg2video,mpeg1video,h263,flv,msmpeg4,msmpeg4v2,wmv1,wmv2,"
    "wmv3,vc1,theora,mjpeg,prores,dnxhd,ffv1,huffyuv,ffvhuff,utvideo,rawvideo,v210,v410,r210,dvvideo,qtrle,png,"
    "jpeg2000,cfhd,magicyuv,cinepak,svq1,svq3,vp6,vp6f,h261"
)
AUDIO_CODECS = (
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,ac3,eac3,dca,truehd,opus,libopus,vorbis,libvorbis,flac,alac,wmav1,wmav2,"
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f64le,pcm_u8,pcm_s8,pcm_alaw,pcm_mulaw,"
    "adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf,pcm_f32be,pcm_f64be,pcm_bluray,pcm_dvd,wmapro,wmalossless,mlp,amrnb,"
    "amrwb,nellymoser,speex,mp1,mp1float,qdm2"
)
#: Formats without a stored duration: FFmpeg estimates it, so a file that ends earlier is not known to be truncated.
GUESSED_LENGTH = frozenset(("mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo", "obu", "yuv4mpegpipe"))
MAX_STREAMS = 32
#: How long the last picture of a video is shown at most, seconds, when the file doesn't say it.
_LONGEST_GAP_S = 10
#: How much of a file FFmpeg may read to detect its streams.
PROBE_BYTES = 20_000_000


#: FFmpeg's names of the containers of a result.
_OUTPUT_FORMATS = {"mp4": "mp4", "mkv": "matroska"}
#: AVFMT_FLAG_BITEXACT: no date and no library version in the file, so that the same input gives the same bytes.
_BITEXACT = 0x400


class MediaFault(Exception):
    """A fault in a video, as a phrase that follows its name: "has no video stream"."""


class _OpensAnotherFile(Exception):
    """The file refers to another file, which FFmpeg tried to open."""


class _Reader(io.BufferedReader):
    """A file for FFmpeg, which seeks where a damaged or empty file has no place: that is a fault of the file."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Raises: ValueError for an impossible place; OSError."""
        try:
            return super().seek(offset, whence)
        except OverflowError as error:
            raise ValueError(str(error)) from None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ValueError(str(error)) from None
            raise


def _refuse(url: str, flags: int, options: dict[str, str]) -> None:
    raise _OpensAnotherFile(url)


@contextmanager
def opened(source: bytes | Path) -> Generator[tuple[InputContainer, VideoStream], None, None]:
    """The container and its first video stream.

    Raises: MediaFault when the file is not a readable video, or too large or too long.
    """
    import av

    file = io.BytesIO(source) if isinstance(source, bytes) else _Reader(source.open("rb", buffering=0))
    with file:
        options = _options()
        try:
            container = av.open(file, mode="r", io_open=_refuse, options=options, metadata_errors="replace")
        except _OpensAnotherFile:
            raise MediaFault("refers to other files, which are not opened") from None
        except (av.FFmpegError, ValueError):
            raise MediaFault("is not a readable video file: damaged, truncated, or of an unsupported format") from None
        with container:
            yield container, _video_of(container)


def open_output(path: Path, container: str) -> OutputContainer:
    """A new video file, without a date or a library version; `container`: mp4 (with its index first) or mkv."""
    import av

    options = {"movflags": "+faststart"} if container == "mp4" else {}
    output = av.open(str(path), "w", format=_OUTPUT_FORMATS[container], container_options=options)
    output.flags |= _BITEXACT
    return output


def _options() -> dict[str, str]:
    return {
        "format_whitelist": DEMUXERS,
        "codec_whitelist": f"{VIDEO_CODECS},{AUDIO_CODECS}",
        "protocol_whitelist": "none",
        "max_streams": str(MAX_STREAMS),
        "probesize": str(PROBE_BYTES),
        "max_pixels": str(MAX_PIXELS),
    }


def _video_of(container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaFault("has no video stream")
    stream = streams[0]
    context = stream.codec_context
    if context is None or context.codec.name not in VIDEO_CODECS.split(","):
        raise MediaFault(f"has an unsupported video codec ({stream.name or 'unknown'})")
    if context.width < 1 or context.height < 1:
        raise MediaFault("has no picture size: damaged or truncated")
    if context.width * context.height > MAX_PIXELS:
        size = f"{context.width} x {context.height} pixels"
        raise MediaFault(f"has {size}; the limit is {MAX_PIXELS // 1_000_000} million")
    # Joined recordings have a false duration: theirs is checked while they are read.
    if (length := duration_s(container, stream)) > MAX_SECONDS and not is_recording(container):
        raise _too_long(length)
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _too_long(length_s: float) -> MediaFault:
    return MediaFault(f"has a duration of {length_s / 3600:.1f} hours; the limit is {MAX_SECONDS // 3600}")


def duration_s(container: InputContainer, stream: VideoStream) -> float:
    """The video's duration according to the file, seconds; 0: unknown."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def time_base_of(stream: VideoStream) -> Fraction:
    """The unit of the stream's time stamps, in seconds. Raises: MediaFault for a stream without one."""
    if not stream.time_base:
        raise MediaFault("has frames without a time")
    return stream.time_base


def rate_of(stream: VideoStream) -> Fraction:
    """Approximate frames per second according to the file, else 25."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate and 0 < rate <= 1000 else Fraction(25)


def announced_packets(container: InputContainer, stream: VideoStream) -> int:
    """How many packets of the video the file must have according to its header or index; 0: unknown.

    A number of frames in a header is not always one of packets: AVI counts the empty chunks that stand for a repeated
    picture, and an edit list leaves out the end of a QuickTime track.
    """
    name = container.format.name
    if name == "avi":
        # FFmpeg derives the duration from the chunks that it finds, empty ones included.
        return stream.frames if (stream.duration or 0) < stream.frames else 0
    if "mp4" in name.split(","):
        return sum(entry.size > 0 for entry in stream.index_entries)
    return stream.frames


class Decoding:
    """Reads and decodes a video, and detects damage and truncation; a recording is mended.

    `packets()` yields the packets of the file; `frames(packet)` decodes one of the video, in presentation order.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, threads: int) -> None:
        self._container, self._stream = container, stream
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        self.read = self.decoded = 0
        self._skipped = 0
        """Packets before the first frame: a recording may begin between key frames."""
        self.mending = Mending() if is_recording(container) else None
        self._start_s = float("inf")
        """The first time of the video."""
        self._end_s = 0.0
        self._previous: int | None = None
        """Time of the previous packet of the video, in its time base."""
        self._broken = False
        """Whether the last packet was corrupt."""

    @property
    def mended(self) -> str:
        """What was mended so far, as a phrase that follows the file's name; "" if nothing was."""
        return self.mending.reason if self.mending is not None else ""

    def packets(self, *others: Any) -> Iterator[Any]:
        """The packets of the video and of the streams `others`; the last of each is empty. Raises: MediaFault."""
        import av

        streams = (self._stream, *others)
        try:
            for packet in self._container.demux():
                if packet.size:
                    self._check_time(packet)
                if packet.stream not in streams:
                    continue
                if packet.size and packet.stream is self._stream:
                    self._check(packet)
                yield packet
        except (av.FFmpegError, ValueError, _OpensAnotherFile):
            raise self._damaged() from None

    def _check_time(self, packet: Any) -> None:
        """Note where the file has been read to. Raises: MediaFault for a recording that is too long."""
        if self.mending is not None:
            self.mending.move(packet)
        if packet.pts is None:
            return
        end = packet.pts + (packet.duration or self._gap(packet))
        self._end_s = max(self._end_s, float(end * packet.time_base))
        if self.mending is not None and packet.stream is self._stream:
            self._start_s = min(self._start_s, float(packet.pts * packet.time_base))
            if self._end_s - self._start_s > MAX_SECONDS:
                raise _too_long(self._end_s - self._start_s)

    def _check(self, packet: Any) -> None:
        """Raises: MediaFault for a corrupt packet of the video, unless the file is a recording."""
        self.read += 1
        self._broken = packet.is_corrupt
        if self._broken and self.read > 1:
            if self.mending is None:
                raise self._damaged()
            self.mending.suspect(packet)

    def _gap(self, packet: Any) -> int:
        """For a packet of the video without a duration: the time since the previous one, in its time base.

        A slide show may have seconds between its pictures, and the header counts the last one.
        """
        if packet.stream is not self._stream:
            return 0
        previous, self._previous = self._previous, packet.pts
        longest = round(_LONGEST_GAP_S / packet.time_base)
        return 0 if previous is None else min(abs(packet.pts - previous), longest)

    def frames(self, packet: Any) -> list[Any]:
        """The frames decoded from a packet of the video.

        Raises: MediaFault on damage after the first frame; before it, a recording may start between key frames.
        """
        import av

        try:
            found = packet.decode()
        except (av.FFmpegError, ValueError):
            if not self.decoded and packet.size:
                return []
            if self.mending is None:
                raise self._damaged() from None
            self.mending.refused(packet, self._end_s)
            return []
        if not self.decoded:
            self._skipped = self.read
        self.decoded += len(found)
        for frame in found:
            if self.mending is not None:
                self.mending.decoded(frame, self._end_s)
            elif frame.is_corrupt:
                raise self._damaged()
        return found

    def check_whole(self) -> None:
        """Call it after the last packet. Raises: MediaFault when nothing was decoded, the file is truncated, or most of
        a recording is damaged."""
        if not self.decoded:
            raise MediaFault("has no frame that can be decoded")
        length_s = (self._container.duration or 0) / 1e6
        # Matroska counts the duration from 0, other containers from the first time: the later end of both is taken.
        ends_s = self._end_s - min(0.0, (self._container.start_time or 0) / 1e6)
        known = self._container.format.name not in GUESSED_LENGTH
        short = known and length_s - ends_s > min(1.0, max(0.1, length_s / 100))
        short = short or (self._broken and self.mending is None)
        if short or self.read < announced_packets(self._container, self._stream):
            length = f" of {length_s:.2f} s" if length_s else ""
            raise MediaFault(f"is truncated: it ends after {ends_s:.2f} s{length}")
        if self.mending is not None:
            whole, expected = self.decoded - self.mending.shown, self.read - self._skipped
            if whole < LEAST_WHOLE * expected:
                raise MediaFault(f"is damaged: {whole} of {expected} pictures are whole")

    def _damaged(self) -> MediaFault:
        return MediaFault(f"is damaged at {self._end_s:.2f} s")
