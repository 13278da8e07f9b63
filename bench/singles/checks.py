"""A figure counts only when both outputs show the same."""

from __future__ import annotations

from pathlib import Path

from bench.harness.measure import BenchFailed

#: How far apart the mean levels of two pictures may be, of 255.
MEAN_LEVELS = 2.0


def same(scene: str, through: Path, alone: Path) -> None:
    """Compare the two outputs of a scene. Raises: BenchFailed."""
    if scene == "map":
        _same_images(through, alone)
    else:
        _same_videos(through, alone)


def _same_images(through: Path, alone: Path) -> None:
    import cv2
    import numpy as np

    names = {file.name for file in through.iterdir() if not file.name.startswith(".")}
    if names != {file.name for file in alone.iterdir()}:
        raise BenchFailed(f"map wrote {len(names)} images, and the baseline others")
    for name in names:
        first, second = (cv2.imread(str(folder / name)) for folder in (through, alone))
        if first is None or second is None or first.shape != second.shape:
            raise BenchFailed(f"{name} differs from the baseline's in size")
        if np.abs(first.astype(int) - second).mean() > MEAN_LEVELS:
            raise BenchFailed(f"{name} differs from the baseline's")


def _same_videos(through: Path, alone: Path) -> None:
    counts = [_frames(path) for path in (through, alone)]
    if counts[0] != counts[1]:
        raise BenchFailed(f"{through.name} has {counts[0]} frames, and the baseline's {counts[1]}")


def _frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))
