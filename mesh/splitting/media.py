"""Opening a stranger's video: from bytes or a file of ours, never by a name, and only as what a video file can be.

FFmpeg reads playlists, session descriptions and lists of other files as gladly as videos, and follows what they name.
Here the demuxers and decoders are those listed, every protocol is off, and whatever would open a second file is
refused by our own hook. Sizes are looked at before a picture is decoded. Heavy: call it where `av` is installed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mesh.kinds.video import MAX_PIXELS, MAX_SECONDS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Names as FFmpeg has them.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,ivf,obu,h264,hevc,m4v,mpegvideo,yuv4mpegpipe"
)
#: What `mesh.splitting` cuts a video into. Nothing else is taken for a part, and this for nothing but a part: a NUT
#: file that was cut off does not show it.
PART_DEMUXER = "nut"
VIDEO_CODECS = (
    "h264,hevc,libdav1d,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mpeg2video,mpeg1video,h263,flv,msmpeg4,msmpeg4v2,wmv1,wmv2,"
    "wmv3,vc1,theora,mjpeg,prores,dnxhd,ffv1,huffyuv,ffvhuff,utvideo,rawvideo,wrapped_avframe"
)
AUDIO_CODECS = (
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,ac3,eac3,dca,truehd,opus,libopus,vorbis,libvorbis,flac,alac,wmav1,wmav2,"
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f64le,pcm_u8,pcm_s8,pcm_alaw,pcm_mulaw,"
    "adpcm_ms,adpcm_ima_wav"
)
#: Of these FFmpeg works the length out itself, near enough at best: they say nothing that could be held against them.
GUESSED_LENGTH = frozenset(("mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo", "obu", "yuv4mpegpipe"))
MAX_STREAMS = 32
#: How deep FFmpeg looks into a file to learn what its streams are.
PROBE_BYTES = 20_000_000


class MediaFault(Exception):
    """What is wrong with a video, as a phrase that follows its name: "is no video"."""


class _Elsewhere(Exception):
    """The file wants another file opened."""


def _refuse(url: str, flags: int, options: dict[str, str]) -> None:
    raise _Elsewhere(url)


@contextmanager
def opened(source: bytes | Path, part: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video; `part`: it was cut out of a longer one.

    Raises: MediaFault when it is no video, or one that is too large.
    """
    import av

    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with file:
        options = _options(part)
        try:
            container = av.open(file, mode="r", io_open=_refuse, options=options, metadata_errors="replace")
        except _Elsewhere:
            raise MediaFault("names other files to be opened, which is not done") from None
        except (av.FFmpegError, ValueError):
            raise MediaFault("is no video file that can be read: damaged, cut off, or of a kind not taken") from None
        with container:
            yield container, _video_of(container)


def _options(part: bool) -> dict[str, str]:
    return {
        "format_whitelist": PART_DEMUXER if part else DEMUXERS,
        "codec_whitelist": f"{VIDEO_CODECS},{AUDIO_CODECS}",
        "protocol_whitelist": "none",
        "max_streams": str(MAX_STREAMS),
        "probesize": str(PROBE_BYTES),
        "max_pixels": str(MAX_PIXELS),
    }


def _video_of(container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaFault("has no video in it")
    stream = streams[0]
    context = stream.codec_context
    if context is None or context.codec.name not in VIDEO_CODECS.split(","):
        raise MediaFault(f"holds video in a code that is not taken ({stream.name or 'unknown'})")
    if context.width < 1 or context.height < 1:
        raise MediaFault("says nothing of its size: damaged, or cut off")
    if context.width * context.height > MAX_PIXELS:
        size = f"{context.width} x {context.height} pixels"
        raise MediaFault(f"announces {size}; at most {MAX_PIXELS // 1_000_000} million are taken")
    if (length := duration_s(container, stream)) > MAX_SECONDS:
        raise MediaFault(f"announces {length / 3600:.1f} hours; at most {MAX_SECONDS // 3600} are taken")
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def duration_s(container: InputContainer, stream: VideoStream) -> float:
    """Seconds that the file says the video lasts; 0 when it says nothing."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def start_of(container: InputContainer) -> Fraction:
    """The first moment of what is kept, in seconds: it becomes 0, so that picture and sound stay together.

    Never less than 0: what lies before is the run-up of a decoder of sound, and is not heard.
    """
    kept = (*container.streams.video, *container.streams.audio)
    starts = [one.start_time * one.time_base for one in kept if one.start_time is not None and one.time_base]
    return max(Fraction(0), min(starts, default=Fraction(0)))


def rate_of(stream: VideoStream) -> Fraction:
    """Frames a second, near enough: what the file says, else 25."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate and 0 < rate <= 1000 else Fraction(25)


class Decoding:
    """The frames of a video in the order they are shown, with what was met on the way.

    `packets()` yields every packet of `streams`; `frames(packet)` what became of one of the video.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, threads: int) -> None:
        self._container, self._stream = container, stream
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        self.read = self.decoded = 0
        self._end_s = 0.0
        self._broken = False
        """Whether the last packet was."""

    def packets(self, *others: Any) -> Iterator[Any]:
        """Packets of the video and of `others`; the last of each stream is empty. Raises: MediaFault."""
        import av

        wanted = (self._stream, *others)
        try:
            for packet in self._container.demux():
                if packet.size and packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    self._end_s = max(self._end_s, float(end * packet.time_base))
                if packet.stream not in wanted:
                    continue
                if packet.size and packet.stream is self._stream:
                    self.read += 1
                    self._broken = packet.is_corrupt
                    if self._broken and self.read > 1:
                        raise self._damaged()
                yield packet
        except (av.FFmpegError, _Elsewhere):
            raise self._damaged() from None

    def frames(self, packet: Any) -> list[Any]:
        """Raises: MediaFault at the first damage after the first frame: a recording may begin anywhere."""
        import av

        try:
            found = packet.decode()
        except (av.FFmpegError, ValueError):
            if not self.decoded and packet.size:
                return []
            raise self._damaged() from None
        self.decoded += len(found)
        if any(frame.is_corrupt for frame in found):
            raise self._damaged()
        return found

    def check_whole(self) -> None:
        """After the last packet. Raises: MediaFault when nothing was decoded, or the file ends before it should."""
        if not self.decoded:
            raise MediaFault("holds no picture that can be decoded")
        announced = (self._container.duration or 0) / 1e6
        ends_s = self._end_s - (self._container.start_time or 0) / 1e6
        known = self._container.format.name not in GUESSED_LENGTH
        short = known and announced - ends_s > min(1.0, max(0.1, announced / 100))
        if self.read < self._stream.frames or short or self._broken:
            said = f"it announces {announced:.2f} s and ends" if announced else "it ends"
            raise MediaFault(f"is cut off: {said} after {ends_s:.2f} s")

    def _damaged(self) -> MediaFault:
        return MediaFault(f"is damaged, {self._end_s:.2f} s into it")
