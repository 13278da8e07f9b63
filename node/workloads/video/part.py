"""Decodes one part of a longer video: see mesh/splitting/video_part.py."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mesh.splitting import video_part
from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av import VideoFrame


class PartReader:
    """Decodes the frames of a part, once."""

    def __init__(self, file: BinaryIO, threads: int) -> None:
        self._file = file
        self.header = video_part.read_header(file)
        self.decoder = video_part.decoder_of(self.header.coding, threads)
        self._given = 0
        self._last = -1
        self._geometry: tuple[int, int, str] | None = None

    def frames(self, time_base: Fraction, same_size: bool = False) -> Iterator[VideoFrame]:
        """The frames that belong to the part, with their times from its beginning.

        `same_size`: nobody has decoded the part before, so all frames must have the size and format of the header.
        Raises: MediaFault when the part is damaged, or decodes to other frames than where it was cut.
        """
        coding = self.header.coding
        self._geometry = (coding.width, coding.height, coding.pixel_format) if same_size else None
        for coded in video_part.read_packets(self._file, self.header):
            yield from self._decoded(video_part.packet_of(coded, list(coded.times)), time_base)
        yield from self._decoded(None, time_base)
        if self._given != self.header.frames:
            raise MediaFault(f"is a part of which {self._given} of {self.header.frames} frames can be decoded")

    def _decoded(self, packet: Any, time_base: Fraction) -> Iterator[VideoFrame]:
        import av

        try:
            frames = self.decoder.decode(packet)
        except (av.FFmpegError, ValueError):
            if not self._given and packet is not None:
                return  # frames of the previous part, whose references are not here
            raise MediaFault("is a part that can't be decoded") from None
        for frame in frames:
            times = frame.opaque
            if not isinstance(times, list) or not times:
                continue  # a frame of another part
            frame.pts, frame.time_base = times.pop(0), time_base
            if frame.is_corrupt or frame.pts <= self._last:
                raise MediaFault("is a part that decodes to other frames than where it was cut")
            if self._geometry not in (None, (frame.width, frame.height, frame.format.name)):
                raise MediaFault("is a part that changes its picture size or pixel format")
            self._last = frame.pts
            self._given += 1
            yield frame


@contextmanager
def opened_part(source: bytes | Path, threads: int) -> Generator[PartReader, None, None]:
    """A part of a video. Raises: MediaFault when it is none, or can't be decoded here; OSError."""
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with file:
        yield PartReader(file, threads)
