"""The implementation of the kinds `video_encode_…`: decode or draw frames, filter, encode, mux video and audio."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import MIN_SIDE, Codec, VideoPayload
from mesh.splitting.media import MediaFault, open_output, opened
from mesh.splitting.media_audio import ChangingAudio
from mesh.splitting.media_carry import Carrier
from mesh.splitting.media_plan import Target, plan
from mesh.splitting.media_table import Outcome
from mesh.splitting.video_compare import Samples
from node.executor.context import Context, InputFault, Output
from node.workloads.common import thread_priority
from node.workloads.video import codecs, quality
from node.workloads.video.frame_filter import FrameFilter, fields_after, stamp_of
from node.workloads.video.input import FIELD, Source, source_of

if TYPE_CHECKING:
    from av import VideoFrame

TYPES = {"mp4": "video/mp4", "mkv": "video/x-matroska"}
#: Interval of progress reports, each of which is a message to the daemon and on the bus.
REPORT_EVERY_S = 0.5
#: Encoding's share of the progress when the result is then compared with its source.
_ENCODING_SHARE = 0.75


def encode(codec: Codec, payload: VideoPayload, context: Context) -> Output:
    """Encode the payload's video into a file. info: codec, encoder, hardware, preset, crf, bit_rate_asked, threads,
    frames, duration_s, width, height, frame_rate, pixel_format, bit_rate (of the video, bits/s), bytes, container,
    audio, damaged_frames, damaged_sound (packets; both of a recording), kept, converted, dropped (texts: what became of
    the source's facts, see docs/video.md), seconds, fps (frames encoded per second), realtime (duration over seconds),
    and facts about the source; with `quality` also psnr_db, psnr_y_db, psnr_min_db, ssim; with `part.compare` compared,
    least_db and least_frame.

    Raises: InputFault.
    """
    path = context.folder / f"encoded.{payload.container}"
    encoder = codecs.choose(codec, payload.encoder)
    try:
        job = _Job(codec, payload, context, path, encoder)
        info = job.run()
    except _EncoderRefused as error:
        if payload.encoder != "auto" or not error.hardware:
            raise InputFault("encoder", f"can't encode this video: {encoder}: {error}") from None
        # The encoder worked with small frames but does not with these.
        job = _Job(codec, payload, context, path, codecs.SOFTWARE[codec])
        info = job.run()
    if payload.quality:
        info |= _compared(job, path)
    return Output(path, TYPES[payload.container], info)


class _EncoderRefused(Exception):
    """The encoder does not support the size or format of the frames."""

    def __init__(self, encoder: str, reason: str) -> None:
        super().__init__(reason)
        self.hardware = encoder not in codecs.SOFTWARE.values()


class _Job:
    """One encoding by one encoder."""

    def __init__(self, codec: Codec, payload: VideoPayload, context: Context, path: Path, encoder: str) -> None:
        self.codec, self.payload, self.context, self.path, self.encoder = codec, payload, context, path, encoder
        self.settings = codecs.settings_of(codec, payload, context.cores)
        self.pixel_format = "yuv420p"
        self.copy = True
        """Whether audio may be copied."""

    def run(self) -> dict[str, Any]:
        """Encode the video; returns the facts for the result."""
        try:
            return self._run()
        except ChangingAudio:
            self.copy = False
            return self._run()

    def _run(self) -> dict[str, Any]:
        started = time.perf_counter()
        frame_format = codecs.pixel_format_of(self.encoder, self.payload.pixel_format or "yuv420p")
        frame_filter = FrameFilter(self.payload, frame_format)
        with source_of(self.payload, self.context, self.codec, frame_filter) as source:
            self.settings = replace(self.settings, picture=source.picture, fields=fields_after(source.picture))
            self.pixel_format = self.payload.pixel_format or source.pixel_format
            frame_filter.pixel_format = codecs.pixel_format_of(self.encoder, self.pixel_format)
            written = self._write(source, frame_filter)
        if not written.frames:
            raise InputFault(FIELD, "has no frame in the requested range")
        compared = self._sample_compared(source.samples) if source.samples is not None else {}
        seconds = time.perf_counter() - started
        return source.facts | self._facts(source, written, seconds) | compared

    def _sample_compared(self, samples: Samples) -> dict[str, Any]:
        """Compare the encoded part with its source. Raises: RuntimeError for an unreadable result."""
        try:
            return samples.compared(self.path, self.context.cores)
        except MediaFault as fault:
            raise RuntimeError(f"the encoded part {fault}") from None

    def _write(self, source: Source, frame_filter: FrameFilter) -> _Writer:
        writer = _Writer(self, source, frame_filter)
        share = _ENCODING_SHARE if self.payload.quality else 1.0
        reported_at = time.perf_counter()
        try:
            for item in source.items:
                if hasattr(item, "stream"):
                    writer.write_packet(item)
                    continue
                writer.write_frame(item)
                if source.expected and (now := time.perf_counter()) - reported_at >= REPORT_EVERY_S:
                    reported_at = now
                    done = min(1.0, writer.frames / source.expected)
                    self.context.progress(share * done, f"{writer.frames} frames")
            writer.finish()
            self.context.progress(share, f"{writer.frames} frames")
        finally:
            writer.close()
        return writer

    def _facts(self, source: Source, written: _Writer, seconds: float) -> dict[str, Any]:
        duration = float(written.duration)
        return {
            "codec": self.codec,
            "encoder": self.encoder,
            "hardware": self.encoder not in codecs.SOFTWARE.values(),
            "preset": self.settings.preset,
            "crf": codecs.crf_of(self.encoder, self.settings),
            "bit_rate_asked": self.settings.bit_rate,
            "threads": self.settings.threads,
            "frames": written.frames,
            "duration_s": round(duration, 6),
            "width": written.size[0],
            "height": written.size[1],
            "frame_rate": round(float(source.rate), 6),
            "pixel_format": self.pixel_format,
            "bit_rate": round(written.bytes * 8 / duration) if duration else 0,
            "bytes": self.path.stat().st_size,
            "container": self.payload.container,
            "audio": written.audio,
            "damaged_frames": source.mending.frames if source.mending else 0,
            "damaged_sound": source.mending.sound if source.mending else 0,
            **written.outcome.as_info(),
            "seconds": round(seconds, 6),
            "fps": round(written.frames / seconds, 3),
            "realtime": round(duration / seconds, 4),
        }


@dataclass
class _Written:
    """The totals of the file so far."""

    frames: int = 0
    bytes: int = 0
    """Total size of the video packets."""
    duration: Fraction = Fraction(0)
    size: tuple[int, int] = (0, 0)
    audio: list[dict[str, str]] = field(default_factory=list)
    """The facts of each audio track."""
    outcome: Outcome = field(default_factory=lambda: Outcome("mp4"))


class _Writer(_Written):
    """Writes the output file. The first frame determines the streams."""

    def __init__(self, job: _Job, source: Source, frame_filter: FrameFilter) -> None:
        super().__init__()
        self._job, self._source, self._filter = job, source, frame_filter
        self._file = open_output(job.path, job.payload.container)
        self._stream: Any = None
        self._carrier: Carrier | None = None
        self._waiting: list[Any] = []

    def write_frame(self, frame: VideoFrame) -> None:
        """Encode one frame. Raises: _EncoderRefused for the first frame."""
        import av

        first = self._stream is None
        if first:
            self._add_streams(frame)
        frame.pict_type = 0  # drop the picture type of the source, so that the encoder decides
        try:
            packets = self._stream.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            if first:
                raise _EncoderRefused(self._job.encoder, getattr(error, "strerror", None) or str(error)) from None
            raise
        finally:
            if first:
                thread_priority.reset_priority()
        self.frames += 1
        pts, time_base = stamp_of(frame)
        step = frame.duration * time_base if frame.duration else 1 / self._source.rate
        self.duration = pts * time_base + step
        self._mux(packets)

    def write_packet(self, packet: Any) -> None:
        """Write a packet of audio or subtitles; before the first frame, when there are no streams yet, keep it."""
        if self._stream is None:
            self._waiting.append(packet)
        elif self._carrier is not None:
            self._carrier.write(packet)

    def finish(self) -> None:
        """Flush the encoder, after the last frame."""
        if self._stream is not None:
            self._mux(self._stream.encode(None))
        if self._carrier is not None:
            self._carrier.finish()

    def close(self) -> None:
        """Write the remaining packets and the index."""
        self._file.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._file.mux(packet)

    def _add_streams(self, frame: VideoFrame) -> None:
        """Add the streams of the file for its first frame. Raises: InputFault when the frame is too small."""
        from av.video.stream import VideoStream

        job, source = self._job, self._source
        self.size = (frame.width, frame.height)
        if min(self.size) < MIN_SIDE:
            field = "resolution" if job.payload.resolution else FIELD
            raise InputFault(
                field, f"gives {frame.width} x {frame.height} pixels; each side must be at least {MIN_SIDE}"
            )
        stream = self._file.add_stream(job.encoder, rate=source.rate, hwaccel=codecs.upload(job.encoder))
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = frame.format.name
        context.time_base = stamp_of(frame)[1]
        context.sample_aspect_ratio = self._filter.aspect
        for name in ("color_primaries", "color_trc", "colorspace", "color_range"):
            setattr(context, name, getattr(frame, name))
        codecs.configure(context, job.encoder, job.settings)
        self._stream = stream
        self._carry(stream)
        # The first packet writes the header, which needs all streams.
        waiting = list(self._waiting)
        self._waiting.clear()
        for packet in waiting:
            self.write_packet(packet)

    def _carry(self, stream: Any) -> None:
        """Prepare the transfer of what a whole file has beside its pictures."""
        source, payload = self._source, self._job.payload
        if source.known is None or source.container is None:
            return
        target = Target(
            codec=self._job.codec,
            container=payload.container,
            software=self._job.encoder in codecs.SOFTWARE.values(),
            size=self.size,
            bits=10 if self._job.pixel_format == "yuv420p10le" else 8,
            audio=payload.audio == "keep",
            copy=self._job.copy,
            location=payload.location == "keep",
            seconds=payload.span,
            rate=source.rate,
        )
        self._carrier = Carrier(plan(source.known, target), source.container, self._file, stream, source.mending)
        self.audio = [track.facts for track in self._carrier.audio]
        self.outcome = self._carrier.outcome


def _compared(job: _Job, path: Path) -> dict[str, float]:
    """Decode the result, read its source again, and compare them. Raises: RuntimeError for an unreadable result."""
    payload = job.payload
    done = 0

    def reporting(frames: Any) -> Any:
        nonlocal done
        for frame in frames:
            done += 1
            if expected:
                share = _ENCODING_SHARE + (1 - _ENCODING_SHARE) * min(1.0, done / expected)
                job.context.progress(share, "comparing")
            yield frame

    frame_filter = FrameFilter(payload, job.pixel_format)
    with source_of(payload, job.context, job.codec, frame_filter, sound=False) as source:
        frame_filter.pixel_format, expected = job.pixel_format, source.expected
        try:
            with opened(path) as (container, stream):
                stream.codec_context.thread_count = job.context.cores
                return quality.compare(container.decode(stream), reporting(source.items), job.pixel_format)
        except MediaFault as fault:
            raise RuntimeError(f"the encoded file {fault}") from None
