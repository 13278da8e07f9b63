"""Video to AV1: a file or a test picture in, an mp4 or mkv out."""

from __future__ import annotations

from mesh.kinds.video import VideoPayload, spec


class VideoEncodeAv1Payload(VideoPayload):
    """What `video_encode_av1` takes. Without `video` it encodes a moving test picture."""


SPEC = spec("av1", "AV1", VideoEncodeAv1Payload, memory_mb=8192)
