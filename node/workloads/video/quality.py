"""Measures the quality of a result against its source, frame by frame: PSNR and SSIM, with FFmpeg's filters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

#: The PSNR that is reported for identical frames, instead of infinity.
IDENTICAL_DB = 100.0


def compare(result: Iterable[Any], reference: Iterable[Any], pixel_format: str) -> dict[str, float]:
    """psnr_db and psnr_y_db of all frames together, psnr_min_db of the worst frame, ssim (mean).

    Both have the same number of frames, of the same size. Raises: ValueError for different numbers; RuntimeError when
    there are none.
    """
    graph: Any = None
    squares, squares_y, worst, similarity, count = 0.0, 0.0, 0.0, 0.0, 0
    for result_frame, reference_frame in zip(result, reference, strict=True):
        if graph is None:
            graph = _graph(result_frame, pixel_format)
        for at, frame in enumerate((result_frame, reference_frame)):
            # Frames are paired by index, not by time: the result begins at 0, its source at any time.
            frame.pts, frame.time_base = count, Fraction(1, 25)
            graph.vpush(frame, at)
        metadata = graph.vpull().metadata
        error = float(metadata["lavfi.psnr.mse_avg"])
        squares, worst, count = squares + error, max(worst, error), count + 1
        squares_y += float(metadata["lavfi.psnr.mse.y"])
        similarity += float(metadata["lavfi.ssim.All"])
    if not count:
        raise RuntimeError("there are no frames to compare")
    peak = 255.0 if pixel_format == "yuv420p" else 1023.0
    return {
        "psnr_db": _decibels(squares / count, peak),
        "psnr_y_db": _decibels(squares_y / count, peak),
        "psnr_min_db": _decibels(worst, peak),
        "ssim": round(similarity / count, 6),
    }


def _decibels(mean_square: float, peak: float) -> float:
    if mean_square <= 0:
        return IDENTICAL_DB
    return round(min(IDENTICAL_DB, 10 * math.log10(peak * peak / mean_square)), 3)


def _graph(frame: Any, pixel_format: str) -> Any:
    """A filter graph with two inputs, result and reference; it outputs the result with both figures as metadata."""
    from av.filter import Graph

    graph = Graph()
    size = {"width": frame.width, "height": frame.height, "format": frame.format, "time_base": Fraction(1, 25)}
    result, reference = (graph.add_buffer(**size, name=name) for name in ("result", "reference"))
    both, psnr, ssim = graph.add("split"), graph.add("psnr"), graph.add("ssim")
    formats = [graph.add("format", pixel_format) for _ in range(2)]
    result.link_to(formats[0])
    reference.link_to(formats[1])
    formats[1].link_to(both)
    formats[0].link_to(psnr, 0, 0)
    both.link_to(psnr, 0, 1)
    psnr.link_to(ssim, 0, 0)
    both.link_to(ssim, 1, 1)
    ssim.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
