"""How far a result is from its source: PSNR and SSIM, by FFmpeg's own filters, frame beside frame."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

#: What is said of pictures that are the same: no decibels are enough.
IDENTICAL_DB = 100.0


def compare(result: Iterable[Any], reference: Iterable[Any], pixel_format: str) -> dict[str, float]:
    """psnr_db and psnr_y_db of all frames together, psnr_min_db of the worst frame, ssim (mean).

    Both give frames of the same size, as many as each other. Raises: RuntimeError when they do not.
    """
    graph: Any = None
    squares, squares_y, worst, likeness, count = 0.0, 0.0, 0.0, 0.0, 0
    for made, wanted in zip(result, reference, strict=True):
        if graph is None:
            graph = _graph(made, pixel_format)
        for at, frame in enumerate((made, wanted)):
            # By place, not by time: the result begins at 0, its source anywhere.
            frame.pts, frame.time_base = count, Fraction(1, 25)
            graph.vpush(frame, at)
        told = graph.vpull().metadata
        error = float(told["lavfi.psnr.mse_avg"])
        squares, worst, count = squares + error, max(worst, error), count + 1
        squares_y += float(told["lavfi.psnr.mse.y"])
        likeness += float(told["lavfi.ssim.All"])
    if not count:
        raise RuntimeError("there is nothing to compare")
    peak = 255.0 if pixel_format == "yuv420p" else 1023.0
    return {
        "psnr_db": _decibels(squares / count, peak),
        "psnr_y_db": _decibels(squares_y / count, peak),
        "psnr_min_db": _decibels(worst, peak),
        "ssim": round(likeness / count, 6),
    }


def _decibels(mean_square: float, peak: float) -> float:
    if mean_square <= 0:
        return IDENTICAL_DB
    return round(min(IDENTICAL_DB, 10 * math.log10(peak * peak / mean_square)), 3)


def _graph(frame: Any, pixel_format: str) -> Any:
    """result and reference in, the result out with both figures written on it."""
    from av.filter import Graph

    graph = Graph()
    size = {"width": frame.width, "height": frame.height, "format": frame.format, "time_base": Fraction(1, 25)}
    made, wanted = (graph.add_buffer(**size, name=name) for name in ("made", "wanted"))
    both, psnr, ssim = graph.add("split"), graph.add("psnr"), graph.add("ssim")
    formats = [graph.add("format", pixel_format) for _ in range(2)]
    made.link_to(formats[0])
    wanted.link_to(formats[1])
    formats[1].link_to(both)
    formats[0].link_to(psnr, 0, 0)
    both.link_to(psnr, 0, 1)
    psnr.link_to(ssim, 0, 0)
    both.link_to(ssim, 1, 1)
    ssim.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
