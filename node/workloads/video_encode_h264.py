"""video_encode_h264: see node/workloads/video/encode.py."""

from __future__ import annotations

from mesh.kinds.video_encode_h264 import VideoEncodeH264Payload
from node.executor.context import Context, Output
from node.workloads.video.encode import encode


def run(payload: VideoEncodeH264Payload, context: Context) -> Output:
    """The encoded file; info: see `encode`. Raises: InputFault."""
    return encode("h264", payload, context)
