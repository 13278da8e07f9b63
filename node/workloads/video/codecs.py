"""The encoders there may be for each codec, what each is told, and which of them really works here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import PRESETS, Codec, VideoPayload
from node.executor.context import InputFault
from node.workloads import thread_priority

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

SOFTWARE: dict[Codec, str] = {"h264": "libx264", "h265": "libx265", "av1": "libsvtav1"}
_STEMS: dict[Codec, str] = {"h264": "h264", "h265": "hevc", "av1": "av1"}
#: In the order they are tried.
_MAKERS = ("nvenc", "qsv", "amf", "videotoolbox", "vaapi")
_USUAL_CRF = {"libx264": 23.0, "libx265": 28.0, "libsvtav1": 35.0}
_HARDWARE_CRF: dict[str, float] = {"h264": 23.0, "h265": 26.0, "av1": 32.0}
#: AV1 counts the other way round, and has more steps.
_SVT_PRESETS = (10, 9, 9, 8, 8, 7, 5, 4, 3)


@dataclass(frozen=True)
class Wish:
    """What an encoder is to do, as plain values."""

    codec: Codec
    preset: str
    crf: float | None
    bit_rate: int | None
    gop: int | None
    threads: int
    repeatable: bool
    """The same bytes on every machine with the same library: for the parts of one video."""


def wish_of(codec: Codec, payload: VideoPayload, cores: int) -> Wish:
    """A payload's."""
    threads = min(payload.threads or cores, cores)
    return Wish(
        codec, payload.preset, payload.crf, payload.bit_rate, payload.gop, threads, repeatable=payload.part is not None
    )


def hardware_names(codec: Codec) -> tuple[str, ...]:
    """The hardware encoders there may be."""
    return tuple(f"{_STEMS[codec]}_{maker}" for maker in _MAKERS)


def crf_of(encoder: str, wish: Wish) -> float | None:
    """The constant quality that is asked for, or the usual one; None with a bit rate."""
    if wish.bit_rate is not None:
        return None
    if wish.crf is not None:
        return wish.crf
    return _USUAL_CRF.get(encoder, _HARDWARE_CRF[wish.codec])


def options(encoder: str, wish: Wish) -> dict[str, str]:
    """The encoder's own options (pure); gop, threads and bit rate are the codec context's."""
    crf, step = crf_of(encoder, wish), PRESETS.index(wish.preset)
    if encoder == "libx264":
        return _some(preset=wish.preset, crf=crf, **{"x264-params": "cpu-independent=1" if wish.repeatable else None})
    if encoder == "libx265":
        # Without `info` the bytes don't name the processor; key frames that all can start at.
        told = ["log-level=none", "info=0", "open-gop=0"]
        told += ["pools=none", "frame-threads=1", "wpp=0"] if wish.threads == 1 else [f"pools={wish.threads}"]
        return _some(preset=wish.preset, crf=crf, **{"x265-params": ":".join(told)})
    if encoder == "libsvtav1":
        # Its `lp` is no number of threads: levels from 1 to 6, each of about twice as many.
        level = min(6, wish.threads.bit_length())
        return _some(preset=_SVT_PRESETS[step], crf=_whole(crf), **{"svtav1-params": f"lp={level}"})
    maker = encoder.rpartition("_")[2]
    speed = step * 7 // len(PRESETS)  # 0 fast … 6 thorough
    if maker == "nvenc":
        return _some(preset=f"p{speed + 1}", rc="vbr", cq=crf)
    if maker == "qsv":
        name = PRESETS[max(2, step)] if step < 8 else "veryslow"
        return _some(preset=name, global_quality=_whole(crf))
    if maker == "amf":
        rate = {"rc": "cqp", "qp_i": round(crf), "qp_p": round(crf)} if crf is not None else {"rc": "vbr_peak"}
        return _some(quality=("speed", "balanced", "quality")[speed // 3 if speed < 6 else 2], **rate)
    if maker == "videotoolbox":
        return _some(**{"q:v": None if crf is None else round(100 - 1.5 * crf), "allow_sw": 0})
    return _some(rc_mode="CQP" if crf is not None else "VBR", qp=_whole(crf))


def _whole(crf: float | None) -> int | None:
    return None if crf is None else round(crf)


def _some(**given: Any) -> dict[str, str]:
    wanted = {name: value for name, value in given.items() if value is not None}
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in wanted.items()}


def create(
    encoder: str, wish: Wish, size: tuple[int, int], rate: Fraction, time_base: Fraction, pixel_format: str
) -> VideoCodecContext:
    """A codec context, set up and not yet opened. Raises: av.FFmpegError, ValueError when there is no such encoder."""
    from av.codec import CodecContext
    from av.video.codeccontext import VideoCodecContext

    context = CodecContext.create(encoder, "w", hwaccel=upload(encoder))
    if not isinstance(context, VideoCodecContext):
        raise ValueError("is no video encoder")
    context.width, context.height = size
    context.pix_fmt, context.framerate, context.time_base = pixel_format, rate, time_base
    setup(context, encoder, wish)
    return context


def setup(context: Any, encoder: str, wish: Wish) -> None:
    """Tell a context that is not open yet what `wish` says."""
    # SVT-AV1 would tell its settings on stderr of every task.
    os.environ.setdefault("SVT_LOG", "1")
    context.options = options(encoder, wish)
    if wish.bit_rate is not None:
        context.bit_rate = wish.bit_rate
    if wish.gop is not None:
        context.gop_size = wish.gop
    # x265 and SVT-AV1 have threads of their own: see `options`.
    if encoder == "libx264":
        context.thread_count = wish.threads


def upload(encoder: str) -> Any:
    """For encoders that take frames of the device only: how frames get there."""
    if not encoder.endswith("_vaapi"):
        return None
    from av.codec.hwaccel import HWAccel

    return HWAccel("vaapi", allow_software_fallback=False)


@cache
def works(encoder: str) -> str:
    """Why an encoder can't be used here; "" when it has just encoded frames. A library that lists it proves nothing."""
    import av
    from av.codec import Codec as AvCodec

    stems: dict[str, Codec] = {"hevc": "h265", "libx265": "h265", "libx264": "h264", "h264": "h264"}
    codec = stems.get(encoder.partition("_")[0], "av1")
    try:
        if encoder not in (SOFTWARE[codec], *hardware_names(codec)):
            raise ValueError("is no encoder of this codec")
        AvCodec(encoder, "w")
        wish = Wish(codec, "fast", None, None, None, 1, repeatable=False)
        context = create(encoder, wish, (320, 192), Fraction(30), Fraction(1, 30), pixel_format_of(encoder))
        made: list[Any] = []
        for number in range(8):
            frame = av.VideoFrame(320, 192, pixel_format_of(encoder))
            frame.pts, frame.time_base = number, Fraction(1, 30)
            made += context.encode(frame)
        made += context.encode(None)
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        return getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__
    finally:
        thread_priority.renounce()
    return "" if sum(packet.size for packet in made) else "it encodes nothing"


def pixel_format_of(encoder: str, wanted: str = "yuv420p") -> str:
    """The format an encoder takes frames in: hardware wants its planes interleaved."""
    if encoder in SOFTWARE.values() or encoder.endswith("_videotoolbox"):
        return wanted
    return "p010le" if wanted == "yuv420p10le" else "nv12"


def choose(codec: Codec, asked: str) -> str:
    """The encoder to use. Raises: InputFault when the one asked for is unknown, or does not work here."""
    hardware = hardware_names(codec)
    if asked == "software":
        return SOFTWARE[codec]
    if asked == "auto":
        return next((name for name in hardware if not works(name)), SOFTWARE[codec])
    if asked not in (SOFTWARE[codec], *hardware):
        names = ", ".join(("auto", "software", SOFTWARE[codec], *hardware))
        raise InputFault("encoder", f"must be one of {names}")
    if reason := works(asked):
        raise InputFault("encoder", f"is {asked}, which does not open on the node that ran this ({reason})")
    return asked
