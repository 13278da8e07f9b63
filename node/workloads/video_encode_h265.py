"""video_encode_h265: see node/workloads/video/encode.py."""

from __future__ import annotations

from mesh.kinds.video_encode_h265 import VideoEncodeH265Payload
from node.executor.context import Context, Output
from node.workloads.video.encode import encode


def run(payload: VideoEncodeH265Payload, context: Context) -> Output:
    """The encoded file; info: see `encode`. Raises: InputFault."""
    return encode("h265", payload, context)
