"""The common part of the contracts of `video_encode_h264`, `video_encode_h265` and `video_encode_av1`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources
from mesh.kinds.video_picture import Picture

#: 8K in any aspect ratio; a file with a larger size in its header is refused before anything is decoded.
MAX_PIXELS = 8192 * 4352
MAX_SIDE = 16_384
#: The shortest side of a result: x265 writes out of bounds for pictures of 34 x 18 pixels.
MIN_SIDE = 64
MAX_SECONDS = 6 * 3600
DEFAULT_FPS = 30.0

SIZES = {
    "360p": (640, 360), "480p": (854, 480), "720p": (1280, 720), "hd": (1280, 720), "1080p": (1920, 1080),
    "full hd": (1920, 1080), "1440p": (2560, 1440), "2k": (2560, 1440), "2160p": (3840, 2160), "4k": (3840, 2160),
    "uhd": (3840, 2160), "4320p": (7680, 4320), "8k": (7680, 4320),
}  # fmt: skip
_SIZE = re.compile(r"(\d{1,5}) ?[x×] ?(\d{1,5})")

#: From fast to thorough, with the names of x264 and x265; the presets of other encoders are selected by index.
PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
Codec = Literal["h264", "h265", "av1"]


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of a resolution, in lower case. Raises: ValueError with a phrase that says what it must be."""
    if text in SIZES:
        return SIZES[text]
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError('must be one of 360p, 480p, 720p, 1080p, 1440p, 4K, 8K, or a size such as "1280x720"')
    width, height = int(match[1]), int(match[2])
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ValueError(f"must have sides of {MIN_SIDE} to {MAX_SIDE} pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(f"must have at most {MAX_PIXELS // 1_000_000} million pixels")
    return width, height


class Part(Payload):
    """Set by `queztl encode`: the file is a part of a longer video, and these are properties of the whole video."""

    time_base: str = Field(
        pattern=r"^[1-9]\d{0,9}/[1-9]\d{0,9}$", description="unit of presentation times: seconds, as a fraction"
    )
    rate: str = Field(
        pattern=r"^[1-9]\d{0,9}/[1-9]\d{0,9}$", description="frames per second of the whole video, as a fraction"
    )
    picture: Picture = Field(default=Picture(), description="how the pictures of the whole video must be shown")
    compare: bool = Field(default=False, description="compare a sample of the encoded frames with the source")


class VideoPayload(Payload):
    """Common payload of the kinds `video_encode_…`. Without `video` they encode a moving test picture."""

    video: Data | None = Field(default=None, description="video file, as base64 or a blob; by default a test picture")
    resolution: Annotated[str | None, BeforeValidator(_lower)] = Field(
        default=None,
        description='720p, 1080p, 4K or "1280x720"; a file is scaled to fit inside this box, a portrait video inside '
        "the box turned upright. Default: the size of the file; 720p for the test picture",
    )
    seconds: float | None = Field(
        default=None, gt=0, le=MAX_SECONDS, allow_inf_nan=False,
        description="duration; default: the whole file, or 10 s of the test picture at 720p, 4 s at 1080p, 2 s at 4K",
    )  # fmt: skip
    fps: float | None = Field(
        default=None, ge=1, le=240, allow_inf_nan=False,
        description="frames per second, for a file by dropping or repeating frames; default: that of the file, or 30",
    )  # fmt: skip
    preset: Annotated[Preset, BeforeValidator(_lower)] = Field(
        default="medium", description="trade-off of speed and file size, from ultrafast to veryslow"
    )
    crf: float | None = Field(
        default=None, ge=0, le=63, allow_inf_nan=False,
        description="constant quality, lower is better; without bit_rate, the codec's usual value by default",
    )  # fmt: skip
    bit_rate: int | None = Field(
        default=None, ge=10_000, le=1_000_000_000, description="bit rate of the video, bits/s, instead of crf"
    )
    gop: int | None = Field(default=None, ge=1, le=10_000, description="maximum number of frames between key frames")
    pixel_format: Literal["yuv420p", "yuv420p10le"] | None = Field(
        default=None,
        description="8 or 10 bits per sample; default: 10 if the file has more than 8 and the codec is not H.264",
    )
    audio: Literal["keep", "drop"] = Field(
        default="keep", description="keep: copy the audio if the container supports its codec, else encode it to AAC"
    )
    location: Literal["drop", "keep"] = Field(
        default="drop", description="keep: write where the video was filmed (GPS) to the result, if the file says so"
    )
    container: Annotated[Literal["mp4", "mkv"], BeforeValidator(_lower)] = Field(
        default="mp4", description="container format; an mp4 has its index first, so that it plays while it downloads"
    )
    encoder: Annotated[str, BeforeValidator(_lower)] = Field(
        default="auto", pattern=r"^[a-z0-9_-]{1,32}$",
        description="auto: a hardware encoder if one works on the node, else software; or software, or a name such as "
        "h264_nvenc",
    )  # fmt: skip
    quality: bool = Field(default=False, description="compare the result with its source: PSNR and SSIM")
    threads: int | None = Field(
        default=None, ge=1, le=64, description="threads of the encoder; default and maximum: one per core"
    )
    part: Part | None = Field(default=None, description="set by `queztl encode` for a part of a longer video")

    @field_validator("resolution")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None:
            size_of(value)
        return value

    @field_validator("bit_rate")
    @classmethod
    def _one_rate_control(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("crf") is not None:
            raise ValueError("must be left out when crf is given")
        return value

    @field_validator("part")
    @classmethod
    def _of_a_file(cls, value: Part | None, info: ValidationInfo) -> Part | None:
        if value is None:
            return None
        if info.data.get("video") is None:
            raise ValueError("must be left out when there is no video")
        if info.data.get("fps") is not None or info.data.get("seconds") is not None:
            raise ValueError("must be left out when fps or seconds is given")
        return value

    @property
    def box(self) -> tuple[int, int] | None:
        """The requested (width, height)."""
        return size_of(self.resolution) if self.resolution else None

    @property
    def span(self) -> Fraction | None:
        """`seconds` as an exact fraction: 0.8 is four fifths, not the nearest binary fraction above it."""
        return None if self.seconds is None else Fraction(self.seconds).limit_denominator(1_000_000)

    @property
    def test_size(self) -> tuple[int, int]:
        """(width, height) of the test picture; even, since chroma has half the samples."""
        width, height = self.box or SIZES["720p"]
        return width // 2 * 2, height // 2 * 2

    @property
    def test_seconds(self) -> float:
        """Duration of the test picture; by default 2 to 10 s, so that the number of pixels is about constant."""
        if self.seconds is not None:
            return self.seconds
        width, height = self.test_size
        return float(min(10, max(2, round(10 * 1280 * 720 / (width * height)))))


def fit(size: tuple[int, int], box: tuple[int, int] | None) -> tuple[int, int]:
    """The even (width, height) of a video of `size` scaled to fit inside `box`; portrait videos turn the box."""
    width, height = size
    if box is None:
        return max(2, width // 2 * 2), max(2, height // 2 * 2)
    wide, high = (min(box), max(box)) if height > width else box
    scale = min(Fraction(wide, width), Fraction(high, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def spec(codec: Codec, title: str, payload: type[VideoPayload], memory_mb: int) -> KindSpec:
    """The contract of the kind for one codec."""
    small = {"resolution": "320x180", "seconds": 0.5, "preset": "ultrafast", "encoder": "software"}
    return KindSpec(
        name=f"video_encode_{codec}",
        summary=f"Encode a video or a test picture to {title}.",
        payload=payload,
        resources=Resources(cores="all", memory_mb=memory_mb),
        needs=(Need("av", "video"), Need("numpy", "video")),
        timeout_s=4 * 3600.0,
        example=small,
        probe={**small, "resolution": "640x360", "preset": "veryfast"},
    )
