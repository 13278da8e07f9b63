"""video_encode_av1: see node/workloads/video/encode.py."""

from __future__ import annotations

from mesh.kinds.video_encode_av1 import VideoEncodeAv1Payload
from node.executor.context import Context, Output
from node.workloads.video.encode import encode


def run(payload: VideoEncodeAv1Payload, context: Context) -> Output:
    """The encoded file; info: see `encode`. Raises: InputFault."""
    return encode("av1", payload, context)
