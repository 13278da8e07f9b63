"""The contract of `video_encode_h265`: encode a file or a test picture to H.265, as mp4 or mkv."""

from __future__ import annotations

from pydantic import Field

from mesh.kinds.video import VideoPayload, spec


class VideoEncodeH265Payload(VideoPayload):
    """Payload of `video_encode_h265`. Without `video` the task encodes a moving test picture."""

    crf: float | None = Field(
        default=None, ge=0, le=51, allow_inf_nan=False,
        description="constant quality, lower is better; 28 by default, without bit_rate",
    )  # fmt: skip


SPEC = spec("h265", "H.265", VideoEncodeH265Payload, memory_mb=8192)
