"""The possible encoders of each codec, their options, and which of them works on this node."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import PRESETS, Codec, VideoPayload
from mesh.kinds.video_picture import FieldOrder, Mastering, Picture
from node.executor.context import InputFault
from node.workloads.common import thread_priority

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

SOFTWARE: dict[Codec, str] = {"h264": "libx264", "h265": "libx265", "av1": "libsvtav1"}
_STEMS: dict[Codec, str] = {"h264": "h264", "h265": "hevc", "av1": "av1"}
#: The hardware interfaces, in the order in which they are tried.
_MAKERS = ("nvenc", "qsv", "amf", "videotoolbox", "vaapi")
_USUAL_CRF = {"libx264": 23.0, "libx265": 28.0, "libsvtav1": 35.0}
_HARDWARE_CRF: dict[str, float] = {"h264": 23.0, "h265": 26.0, "av1": 32.0}
#: SVT-AV1's presets for PRESETS; they count down, and there are more of them.
_SVT_PRESETS = (10, 9, 9, 8, 8, 7, 5, 4, 3)


@dataclass(frozen=True)
class EncoderSettings:
    """The requested settings of an encoder."""

    codec: Codec
    preset: str
    crf: float | None
    bit_rate: int | None
    gop: int | None
    threads: int
    repeatable: bool
    """Produce the same bytes on every machine with the same library, for the parts of one video."""
    picture: Picture = field(default_factory=Picture)
    fields: FieldOrder = "progressive"
    """The order of the fields of the frames to encode."""


def settings_of(codec: Codec, payload: VideoPayload, cores: int) -> EncoderSettings:
    """The settings of a payload."""
    threads = min(payload.threads or cores, cores)
    return EncoderSettings(
        codec, payload.preset, payload.crf, payload.bit_rate, payload.gop, threads, repeatable=payload.part is not None
    )


def hardware_names(codec: Codec) -> tuple[str, ...]:
    """The names of the possible hardware encoders."""
    return tuple(f"{_STEMS[codec]}_{maker}" for maker in _MAKERS)


def crf_of(encoder: str, settings: EncoderSettings) -> float | None:
    """The requested constant quality, or the encoder's usual one; None with a bit rate."""
    if settings.bit_rate is not None:
        return None
    if settings.crf is not None:
        return settings.crf
    return _USUAL_CRF.get(encoder, _HARDWARE_CRF[settings.codec])


def options(encoder: str, settings: EncoderSettings) -> dict[str, str]:
    """The encoder's private options (pure); gop, threads and bit rate belong to the codec context."""
    crf, step = crf_of(encoder, settings), PRESETS.index(settings.preset)
    if encoder == "libx264":
        params = ["cpu-independent=1"] if settings.repeatable else []
        params += {"progressive": [], "top_first": ["tff=1"], "bottom_first": ["bff=1"]}[settings.fields]
        params += _hdr(settings.picture, "mastering-display", "cll")
        params += [] if settings.picture.packing is None else [f"frame-packing={settings.picture.packing}"]
        return _as_text(preset=settings.preset, crf=crf, **{"x264-params": ":".join(params) or None})
    if encoder == "libx265":
        # info=0 keeps the name of the processor out of the stream; with closed GOPs every key frame is a cut point.
        params = ["log-level=none", "info=0", "open-gop=0"]
        params += ["pools=none", "frame-threads=1", "wpp=0"] if settings.threads == 1 else [f"pools={settings.threads}"]
        params += _hdr(settings.picture, "master-display", "max-cll")
        return _as_text(preset=settings.preset, crf=crf, a53cc=1, **{"x265-params": ":".join(params)})
    if encoder == "libsvtav1":
        # `lp` is not a number of threads but a level from 1 to 6, each with about twice as many.
        level = min(6, settings.threads.bit_length())
        params = [f"lp={level}", *_hdr(settings.picture, "mastering-display", "content-light", numbers=False)]
        return _as_text(preset=_SVT_PRESETS[step], crf=_rounded(crf), **{"svtav1-params": ":".join(params)})
    maker = encoder.rpartition("_")[2]
    speed = step * 7 // len(PRESETS)  # 0 fast … 6 thorough
    if maker == "nvenc":
        return _as_text(preset=f"p{speed + 1}", rc="vbr", cq=crf)
    if maker == "qsv":
        name = PRESETS[max(2, step)] if step < 8 else "veryslow"
        return _as_text(preset=name, global_quality=_rounded(crf))
    if maker == "amf":
        rate = {"rc": "cqp", "qp_i": round(crf), "qp_p": round(crf)} if crf is not None else {"rc": "vbr_peak"}
        return _as_text(quality=("speed", "balanced", "quality")[speed // 3 if speed < 6 else 2], **rate)
    if maker == "videotoolbox":
        return _as_text(**{"q:v": None if crf is None else round(100 - 1.5 * crf), "allow_sw": 0})
    return _as_text(rc_mode="CQP" if crf is not None else "VBR", qp=_rounded(crf))


def _hdr(picture: Picture, mastering: str, light: str, numbers: bool = True) -> list[str]:
    """The encoder's parameters of these two names. `numbers`: as whole numbers of the units of `Mastering`."""
    params = []
    if picture.mastering is not None:
        params.append(f"{mastering}={_mastering(picture.mastering, numbers)}")
    if picture.light is not None:
        params.append(f"{light}={picture.light[0]},{picture.light[1]}")
    return params


def _mastering(display: Mastering, numbers: bool) -> str:
    point, level = (1, 1) if numbers else (50_000, 10_000)
    points = {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}
    pairs = [(name, x / point, y / point) for name, (x, y) in points.items()]
    pairs.append(("L", display.luminance[0] / level, display.luminance[1] / level))
    return "".join(f"{name}({first:.12g},{second:.12g})" for name, first, second in pairs)


def _rounded(crf: float | None) -> int | None:
    return None if crf is None else round(crf)


def _as_text(**values: Any) -> dict[str, str]:
    """The values as text, without those that are None."""
    present = {name: value for name, value in values.items() if value is not None}
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in present.items()}


def create(
    encoder: str,
    settings: EncoderSettings,
    size: tuple[int, int],
    rate: Fraction,
    time_base: Fraction,
    pixel_format: str,
) -> VideoCodecContext:
    """A configured codec context, not opened yet. Raises: av.FFmpegError; ValueError for an unknown encoder."""
    from av.codec import CodecContext
    from av.video.codeccontext import VideoCodecContext

    context = CodecContext.create(encoder, "w", hwaccel=upload(encoder))
    if not isinstance(context, VideoCodecContext):
        raise ValueError("is no video encoder")
    context.width, context.height = size
    context.pix_fmt, context.framerate, context.time_base = pixel_format, rate, time_base
    configure(context, encoder, settings)
    return context


def configure(context: Any, encoder: str, settings: EncoderSettings) -> None:
    """Apply the settings to a codec context that is not opened yet."""
    if encoder == "libx264" and context.height % 4:
        settings = replace(settings, fields="progressive")  # it refuses fields of an odd number of chroma lines
    # SVT-AV1 would print its settings on stderr of every task.
    os.environ.setdefault("SVT_LOG", "1")
    context.options = options(encoder, settings)
    if settings.bit_rate is not None:
        context.bit_rate = settings.bit_rate
    if settings.gop is not None:
        context.gop_size = settings.gop
    # The containers note it; H.264 also does in its own data, see `options`.
    context.field_order = {"progressive": 0, "top_first": 2, "bottom_first": 3}[settings.fields]
    # x265 and SVT-AV1 have their own thread options: see `options`.
    if encoder == "libx264":
        context.thread_count = settings.threads


def upload(encoder: str) -> Any:
    """The upload of frames, for encoders that accept only frames in device memory; else None."""
    if not encoder.endswith("_vaapi"):
        return None
    from av.codec.hwaccel import HWAccel

    return HWAccel("vaapi", allow_software_fallback=False)


@cache
def unusable_reason(encoder: str) -> str:
    """The reason why an encoder can't be used here; "" when it works. It encodes frames to find out, since a library
    may list an encoder that does not work."""
    import av
    from av.codec import Codec as AvCodec

    stems: dict[str, Codec] = {"hevc": "h265", "libx265": "h265", "libx264": "h264", "h264": "h264"}
    codec = stems.get(encoder.partition("_")[0], "av1")
    try:
        if encoder not in (SOFTWARE[codec], *hardware_names(codec)):
            raise ValueError("is not an encoder of this codec")
        AvCodec(encoder, "w")
        settings = EncoderSettings(codec, "fast", None, None, None, 1, repeatable=False)
        context = create(encoder, settings, (320, 192), Fraction(30), Fraction(1, 30), pixel_format_of(encoder))
        packets: list[Any] = []
        for number in range(8):
            frame = av.VideoFrame(320, 192, pixel_format_of(encoder))
            frame.pts, frame.time_base = number, Fraction(1, 30)
            packets += context.encode(frame)
        packets += context.encode(None)
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        return getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__
    finally:
        thread_priority.reset_priority()
    return "" if sum(packet.size for packet in packets) else "it produces no data"


def pixel_format_of(encoder: str, pixel_format: str = "yuv420p") -> str:
    """The format of an encoder's frames for a pixel format: hardware encoders need interleaved chroma planes."""
    if encoder in SOFTWARE.values() or encoder.endswith("_videotoolbox"):
        return pixel_format
    return "p010le" if pixel_format == "yuv420p10le" else "nv12"


def choose(codec: Codec, requested: str) -> str:
    """The encoder to use. `requested`: auto, software, or a name.

    Raises: InputFault when the requested encoder is unknown, or does not work on this node.
    """
    hardware = hardware_names(codec)
    if requested == "software":
        return SOFTWARE[codec]
    if requested == "auto":
        return next((name for name in hardware if not unusable_reason(name)), SOFTWARE[codec])
    if requested not in (SOFTWARE[codec], *hardware):
        names = ", ".join(("auto", "software", SOFTWARE[codec], *hardware))
        raise InputFault("encoder", f"must be one of {names}")
    if reason := unusable_reason(requested):
        raise InputFault("encoder", f"is {requested}, which does not work on the node that ran this ({reason})")
    return requested
