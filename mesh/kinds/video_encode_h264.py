"""Video to H.264: a file or a test picture in, an mp4 or mkv out."""

from __future__ import annotations

from pydantic import Field

from mesh.kinds.video import VideoPayload, spec


class VideoEncodeH264Payload(VideoPayload):
    """What `video_encode_h264` takes. Without `video` it encodes a moving test picture."""

    crf: float | None = Field(
        default=None, ge=0, le=51, allow_inf_nan=False,
        description="constant quality, lower is better; 23 when neither this nor bit_rate is given",
    )  # fmt: skip


SPEC = spec("h264", "H.264", VideoEncodeH264Payload, memory_mb=6144)
