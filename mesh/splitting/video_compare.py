"""Compares an encoded part with its source where the source is decoded anyway: on the node. Requires PyAV and NumPy.

The node takes small copies of a sample of the frames that it encodes, decodes the result, and reports the worst PSNR.
Frames that no other frame refers to are not decoded: that halves the time, and the others lie all over the part.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.kinds.video_picture import Turn
from mesh.splitting import video_pictures
from mesh.splitting.media import Decoding, MediaFault, opened

#: The first frames of a part are compared, and every n-th of the others.
FIRST, EVERY = 8, 6
#: The PSNR that is reported for equal pictures, instead of infinity.
EQUAL_DB = 100.0


class OtherPictures(MediaFault):
    """An encoded part whose pictures are not those of the source."""


@dataclass
class Samples:
    """Small copies of a sample of the frames of a part, as they are shown."""

    turn: Turn
    copies: dict[int, Any] = field(default_factory=dict)
    """By the number of the frame, in presentation order."""

    def of(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Pass all frames on, and copy those of the sample."""
        for number, frame in enumerate(frames):
            if number < FIRST or number % EVERY == 0:
                self.copies[number] = video_pictures.turned(video_pictures.small_copy(frame), self.turn)
            yield frame

    def compared(self, path: Path, threads: int) -> dict[str, Any]:
        """Decode the encoded part; returns the fields of the task's info that `check` reads: compared (number of
        frames), least_db (the worst PSNR of them) and least_frame (its number, from 0).

        Raises: MediaFault when it can't be decoded.
        """
        times: list[int] = []
        results: list[tuple[float, int]] = []
        with opened(path) as (container, stream):
            stream.codec_context.skip_frame = "NONREF"
            reading = Decoding(container, stream, threads)
            for packet in reading.packets():
                if packet.size:
                    insort(times, packet.pts)
                for frame in reading.frames(packet):
                    # Whatever is shown before it has been read, decoded or not.
                    number = bisect_left(times, frame.pts)
                    if number in self.copies:
                        copy = video_pictures.small_copy(frame)
                        results.append((video_pictures.psnr_db(copy, self.copies[number]), number))
            reading.check_whole()
        least_db, number = min(results, default=(0.0, 0))
        return {"compared": len(results), "least_db": round(min(least_db, EQUAL_DB), 2), "least_frame": number}


def check(info: Mapping[str, Any]) -> None:
    """Judge what a node says about the part that it encoded.

    Raises: MediaFault when it has compared nothing; OtherPictures when a frame was not that of the source.
    """
    compared, least_db = info.get("compared"), info.get("least_db")
    if not compared or not isinstance(least_db, int | float):
        raise MediaFault("was not compared with the source by its node")
    judge(info.get("least_frame", 0), least_db)


def judge(number: int, found_db: float) -> None:
    """Judge one compared frame; `number` from 0, `found_db`: its PSNR. Raises: OtherPictures."""
    if not found_db >= video_pictures.FLOOR_DB:
        raise OtherPictures(f"has a frame {number + 1} that is not the one of the source (PSNR {found_db:.1f} dB)")
