"""The contract of `video_encode_av1`: encode a file or a test picture to AV1, as mp4 or mkv."""

from __future__ import annotations

from mesh.kinds.video import VideoPayload, spec


class VideoEncodeAv1Payload(VideoPayload):
    """Payload of `video_encode_av1`. Without `video` the task encodes a moving test picture."""


SPEC = spec("av1", "AV1", VideoEncodeAv1Payload, memory_mb=8192)
