"""What the kinds `video_encode_…` do: decode or draw, shape, encode, put picture and sound into one file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import MIN_SIDE, Codec, VideoPayload
from mesh.splitting.media import MediaFault, opened
from mesh.splitting.media_audio import Track
from node.executor.context import Context, InputFault, Output
from node.workloads import thread_priority
from node.workloads.video import codecs, quality
from node.workloads.video.input import FIELD, Shape, Source, source_of, stamp_of

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer

TYPES = {"mp4": "video/mp4", "mkv": "video/x-matroska"}
_FORMATS = {"mp4": "mp4", "mkv": "matroska"}
#: Telling costs the daemon and the bus a message each time.
TELL_EVERY_S = 0.5
#: Share of the work that encoding is when the result is compared with its source.
_COMPARED = 0.75


def encode(codec: Codec, payload: VideoPayload, context: Context) -> Output:
    """The file, and of it: codec, encoder, hardware, preset, crf or bit_rate_asked, threads, frames, duration_s,
    width, height, frame_rate, pixel_format, bit_rate (of the video, bits/s), bytes, container, audio, seconds, fps
    (frames encoded a second), realtime (duration over seconds); with `quality` psnr_db, psnr_y_db, psnr_min_db, ssim.

    Raises: InputFault.
    """
    path = context.folder / f"encoded.{payload.container}"
    encoder = codecs.choose(codec, payload.encoder)
    try:
        job = _Job(codec, payload, context, path, encoder)
        info = job.run()
    except _NotOpened as error:
        if payload.encoder != "auto" or not error.hardware:
            raise InputFault("encoder", f"can't encode this: {encoder} {error}") from None
        # It opened for a small picture, and does not for this one.
        job = _Job(codec, payload, context, path, codecs.SOFTWARE[codec])
        info = job.run()
    if payload.quality:
        info |= _compared(job, path)
    return Output(path, TYPES[payload.container], info)


class _NotOpened(Exception):
    """The encoder refuses this size or format."""

    def __init__(self, encoder: str, reason: str) -> None:
        super().__init__(reason)
        self.hardware = encoder not in codecs.SOFTWARE.values()


class _Job:
    """One encoding by one encoder."""

    def __init__(self, codec: Codec, payload: VideoPayload, context: Context, path: Path, encoder: str) -> None:
        self.codec, self.payload, self.context, self.path, self.encoder = codec, payload, context, path, encoder
        self.wish = codecs.wish_of(codec, payload, context.cores)
        self.pixel_format = "yuv420p"

    def shape(self, source_format: str) -> Shape:
        """How frames are shaped for this encoder."""
        return Shape(self.payload, codecs.pixel_format_of(self.encoder, source_format))

    def run(self) -> dict[str, Any]:
        """Encode all of it; the facts."""
        began = time.perf_counter()
        shape = self.shape(self.payload.pixel_format or "yuv420p")
        with source_of(self.payload, self.context, self.codec, shape) as source:
            self.pixel_format = self.payload.pixel_format or source.pixel_format
            shape.pixel_format = codecs.pixel_format_of(self.encoder, self.pixel_format)
            written = self._write(source, shape)
        seconds = time.perf_counter() - began
        if not written.frames:
            raise InputFault(FIELD, "has no frame in what was asked for")
        return source.facts | self._facts(source, written, seconds)

    def _write(self, source: Source, shape: Shape) -> _Writer:
        writer = _Writer(self, source, shape)
        share = _COMPARED if self.payload.quality else 1.0
        told = time.perf_counter()
        try:
            for item in source.items:
                if hasattr(item, "stream"):
                    writer.sound(item)
                    continue
                writer.picture(item)
                if source.expected and (now := time.perf_counter()) - told >= TELL_EVERY_S:
                    told = now
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
            "preset": self.wish.preset,
            "crf": codecs.crf_of(self.encoder, self.wish),
            "bit_rate_asked": self.wish.bit_rate,
            "threads": self.wish.threads,
            "frames": written.frames,
            "duration_s": round(duration, 6),
            "width": written.size[0],
            "height": written.size[1],
            "frame_rate": round(float(source.rate), 6),
            "pixel_format": self.pixel_format,
            "bit_rate": round(written.bytes * 8 / duration) if duration else 0,
            "bytes": self.path.stat().st_size,
            "container": self.payload.container,
            "audio": [track.facts for track in written.tracks],
            "seconds": round(seconds, 6),
            "fps": round(written.frames / seconds, 3),
            "realtime": round(duration / seconds, 4),
        }


@dataclass
class _Written:
    """What went into the file so far."""

    frames: int = 0
    bytes: int = 0
    """Of the video alone."""
    duration: Fraction = Fraction(0)
    size: tuple[int, int] = (0, 0)


class _Writer(_Written):
    """The file that is written. Its streams are made when the first frame says what they are."""

    def __init__(self, job: _Job, source: Source, shape: Shape) -> None:
        import av

        super().__init__()
        self._job, self._source, self._shape = job, source, shape
        options = {"movflags": "+faststart"} if job.payload.container == "mp4" else {}
        self._file: OutputContainer = av.open(
            str(job.path), "w", format=_FORMATS[job.payload.container], container_options=options
        )
        self._file.flags |= 0x400  # no date and no version of a library in the file: the same input, the same bytes
        self._stream: Any = None
        self.tracks: list[Track] = []
        self._waiting: list[Any] = []

    def picture(self, frame: VideoFrame) -> None:
        """Encode one frame."""
        import av

        first = self._stream is None
        if first:
            self._make(frame)
        frame.pict_type = 0  # as the source had it coded: the encoder decides for itself
        try:
            packets = self._stream.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            if first:
                raise _NotOpened(self._job.encoder, getattr(error, "strerror", None) or str(error)) from None
            raise
        finally:
            if first:
                thread_priority.renounce()
        self.frames += 1
        pts, time_base = stamp_of(frame)
        step = frame.duration * time_base if frame.duration else 1 / self._source.rate
        self.duration = pts * time_base + step
        self._put(packets)

    def sound(self, packet: Any) -> None:
        """Take a packet of sound. Until the first frame there is no file yet: it waits."""
        if self._stream is None:
            self._waiting.append(packet)
        else:
            self.tracks[self._source.tracks.index(packet.stream)].write(packet)

    def finish(self) -> None:
        """All frames are in."""
        if self._stream is not None:
            self._put(self._stream.encode(None))

    def close(self) -> None:
        """Write what is left, and the index."""
        self._file.close()

    def _put(self, packets: list[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._file.mux(packet)

    def _make(self, frame: VideoFrame) -> None:
        from av.video.stream import VideoStream

        job, source = self._job, self._source
        self.size = (frame.width, frame.height)
        if min(self.size) < MIN_SIDE:
            field = "resolution" if job.payload.resolution else FIELD
            raise InputFault(field, f"would make {frame.width} x {frame.height} pixels; each side needs {MIN_SIDE}")
        stream = self._file.add_stream(job.encoder, rate=source.rate, hwaccel=codecs.upload(job.encoder))
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = frame.format.name
        context.time_base = stamp_of(frame)[1]
        context.sample_aspect_ratio = self._shape.aspect
        for name in ("color_primaries", "color_trc", "colorspace", "color_range"):
            setattr(context, name, getattr(frame, name))
        codecs.setup(context, job.encoder, job.wish)
        self._stream = stream
        for one in source.tracks:
            self.tracks.append(Track(one, self._file, job.payload.container, source.start, job.payload.span))
        # The header is written with the first packet, and must know of all streams by then.
        waiting = list(self._waiting)
        self._waiting.clear()
        for packet in waiting:
            self.sound(packet)


def _compared(job: _Job, path: Path) -> dict[str, float]:
    """Decode the result, make its source once more, and lay them side by side."""
    payload = job.payload
    done = 0

    def told(frames: Any) -> Any:
        nonlocal done
        for frame in frames:
            done += 1
            if expected:
                job.context.progress(_COMPARED + (1 - _COMPARED) * min(1.0, done / expected), "comparing")
            yield frame

    shape = Shape(payload, job.pixel_format)
    with source_of(payload, job.context, job.codec, shape, sound=False) as source:
        shape.pixel_format, expected = job.pixel_format, source.expected
        try:
            with opened(path) as (container, stream):
                stream.codec_context.thread_count = job.context.cores
                return quality.compare(container.decode(stream), told(source.items), job.pixel_format)
        except MediaFault as fault:
            raise RuntimeError(f"the file that was made {fault}") from None
