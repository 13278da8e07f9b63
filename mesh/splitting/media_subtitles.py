"""The subtitles of a video: copied where the container has their format, else written anew as text."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av.container import OutputContainer

_MILLISECOND = Fraction(1, 1000)


class SubtitleTrack:
    """Transfers one track of subtitles from one container into another.

    `encoder`: mov_text or subrip, for a track that is not `copied`. `start` (seconds) of the source becomes 0; what is
    shown at `seconds` or later is left out. Raises: MediaFault.
    """

    def __init__(
        self,
        source: Any,
        output: OutputContainer,
        encoder: str,
        copied: bool,
        start: Fraction,
        seconds: Fraction | None,
    ) -> None:
        self.source, self._output, self._copied = source, output, copied
        self._start, self._seconds = start, seconds
        if copied:
            self.stream: Any = output.add_stream_from_template(source, opaque=True)
        else:
            self.stream = output.add_stream(encoder)
            self.stream.codec_context.time_base = _MILLISECOND
            self._take_styles()

    def _take_styles(self) -> None:
        """Give the encoder the styles of the source, which its decoder knows. Raises: MediaFault."""
        import av

        decoder = self.source.codec_context
        try:
            if not decoder.is_open:
                decoder.open(strict=False)
        except (av.FFmpegError, ValueError):
            raise MediaFault("has damaged subtitles") from None
        self.stream.codec_context.subtitle_header = decoder.subtitle_header

    def write(self, packet: Any) -> None:
        """Transfer the next packet of the source; the last one is empty."""
        import av

        if not packet.size or packet.pts is None or _is_gap(packet, self.source.codec_context.name):
            return
        begins, ends = self._times(packet)
        if (ends is not None and ends <= begins) or (self._seconds is not None and begins >= self._seconds):
            return
        try:
            if not self._copied:
                packet = self._encoded(packet)
        except (av.FFmpegError, ValueError):
            raise MediaFault("has damaged subtitles") from None
        if packet is None:
            return
        packet.stream, packet.time_base = self.stream, _MILLISECOND
        packet.pts = packet.dts = round(begins / _MILLISECOND)
        packet.duration = 0 if ends is None else round((ends - begins) / _MILLISECOND)
        self._output.mux(packet)

    def _times(self, packet: Any) -> tuple[Fraction, Fraction | None]:
        """(start, end) in the result, seconds, cut to its length; the end is None when only the next one ends it."""
        begins = packet.pts * packet.time_base - self._start
        if not packet.duration:
            return max(begins, Fraction(0)), None
        ends = begins + packet.duration * packet.time_base
        return max(begins, Fraction(0)), ends if self._seconds is None else min(ends, self._seconds)

    def _encoded(self, packet: Any) -> Any:
        found = self.source.codec_context.decode2(packet)
        if found is None or not len(found):
            return None
        return self.stream.codec_context.encode_subtitle(found)


def _is_gap(packet: Any, codec: str) -> bool:
    """Whether a packet of mov_text holds no text: the muxer writes such packets by itself."""
    return codec == "mov_text" and bytes(packet)[:2] == b"\0\0"
