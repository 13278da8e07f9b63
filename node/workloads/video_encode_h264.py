"""video_encode_h264: node/workloads/video.py does it."""

from __future__ import annotations

from mesh.kinds.video_encode_h264 import VideoEncodeH264Payload
from node.workload import Context, Output
from node.workloads.video import encode


def run(payload: VideoEncodeH264Payload, context: Context) -> Output:
    """The encoded file; info: see `encode`. Raises: InputFault."""
    return encode("h264", payload, context)
