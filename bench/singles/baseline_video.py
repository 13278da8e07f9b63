"""`python -m bench.singles.baseline_video SOURCE TARGET THREADS`: encode a video with PyAV alone."""

from __future__ import annotations

import sys

import av

from bench.singles.inputs import CRF, PRESET


def main() -> None:
    """Encode SOURCE into TARGET."""
    source, target, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with av.open(source) as reader, av.open(target, "w", options={"movflags": "+faststart"}) as writer:
        stream = reader.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        encoder = writer.add_stream("libx264", rate=stream.average_rate)
        encoder.width, encoder.height, encoder.pix_fmt = stream.width, stream.height, "yuv420p"
        encoder.codec_context.thread_count = threads
        encoder.options = {"preset": PRESET, "crf": f"{CRF}"}
        for frame in reader.decode(stream):
            frame.pict_type = 0
            writer.mux(encoder.encode(frame))
        writer.mux(encoder.encode(None))


if __name__ == "__main__":
    main()
