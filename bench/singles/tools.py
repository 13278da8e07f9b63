"""The baselines: OpenCV in several processes, and ffmpeg's command or, where there is none, PyAV in one process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.singles.inputs import CRF, PRESET, QUALITY, WIDTH


@dataclass(frozen=True)
class VideoEncoder:
    """What encodes a video without a mesh."""

    name: str
    command: Callable[[Path, Path], list[str]]
    """(source, target) -> command line"""


def video_encoder(threads: int) -> VideoEncoder:
    """ffmpeg's command where it is installed, else PyAV: same encoder, settings and threads."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return VideoEncoder("PyAV in one process (ffmpeg's command is not installed)", _pyav(threads))

    def command(source: Path, target: Path) -> list[str]:
        return [
            ffmpeg, "-v", "error", "-y", "-i", str(source), "-c:v", "libx264", "-preset", PRESET, "-crf", f"{CRF}",
            "-threads", f"{threads}", "-c:a", "copy", "-movflags", "+faststart", str(target),
        ]  # fmt: skip

    return VideoEncoder("ffmpeg's command", command)


def _pyav(threads: int) -> Callable[[Path, Path], list[str]]:
    def command(source: Path, target: Path) -> list[str]:
        return [sys.executable, "-m", "bench.singles.baseline_video", str(source), str(target), f"{threads}"]

    return command


def image_processes(photos: Path, target: Path, processes: int) -> list[list[str]]:
    """One command line per process, each for its share of the photographs."""
    program = [sys.executable, "-m", "bench.singles.baseline_images", f"{WIDTH}", f"{QUALITY}", str(target)]
    files = sorted(str(file) for file in photos.iterdir())
    return [[*program, *files[number::processes]] for number in range(processes)]
