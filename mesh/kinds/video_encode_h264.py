"""The contract of `video_encode_h264`: encode a file or a test picture to H.264, as mp4 or mkv."""

from __future__ import annotations

from pydantic import Field

from mesh.kinds.video import VideoPayload, spec


class VideoEncodeH264Payload(VideoPayload):
    """Payload of `video_encode_h264`. Without `video` the task encodes a moving test picture."""

    crf: float | None = Field(
        default=None, ge=0, le=51, allow_inf_nan=False,
        description="constant quality, lower is better; 23 by default, without bit_rate",
    )  # fmt: skip


SPEC = spec("h264", "H.264", VideoEncodeH264Payload, memory_mb=6144)
