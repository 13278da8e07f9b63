"""The audio tracks of a video: copied where the output container supports the codec, else encoded."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

    from mesh.splitting.media_plan import AudioPlan

AAC_BITS_A_CHANNEL = 96_000
#: By how much times may go back before it is said that they do; the muxer and the encoder decide about less.
_OUT_OF_ORDER_S = Fraction(1, 2)
#: How far before the start of the result a packet may end: AAC needs one or two packets to settle.
_PRIMING_S = Fraction(1, 20)


class Track:
    """Transfers one audio track from one container into another.

    `start` (seconds) of the source becomes 0; audio at `seconds` or later is left out. Raises: MediaFault.
    """

    def __init__(
        self, source: AudioStream, output: OutputContainer, plan: AudioPlan, start: Fraction, seconds: Fraction | None
    ) -> None:
        self.source, self._output, self.start, self._seconds = source, output, start, seconds
        self._plan = plan
        self._resampler: Any = None
        self._last = Fraction(-(10**9))
        """Time of the last packet, seconds."""
        self.stream = self._copied_stream() if plan.copied else self._encoded_stream()

    @property
    def facts(self) -> dict[str, str]:
        """{"codec", "how"} for the result."""
        codec = self._plan.track.codec
        if self._plan.copied:
            return {"codec": codec, "how": "copied"}
        name = "AAC" if self._plan.codec == "aac" else self._plan.codec
        return {"codec": self._plan.codec, "how": f"encoded to {name}: the container does not support {codec}"}

    def _copied_stream(self) -> Any:
        return self._output.add_stream_from_template(self.source, opaque=True)

    def _encoded_stream(self) -> Any:
        from av.audio.resampler import AudioResampler

        plan = self._plan
        stream: Any = self._output.add_stream(plan.codec, rate=plan.rate, layout=plan.layout)
        context = stream.codec_context
        if plan.codec == "aac":
            stream.bit_rate = AAC_BITS_A_CHANNEL * context.layout.nb_channels
        self._resampler = AudioResampler(context.format.name, plan.layout, plan.rate, frame_size=1024)
        return stream

    def write(self, packet: Any) -> None:
        """Transfer the next packet of the source; the last one is empty."""
        import av

        self._check_order(packet)
        try:
            if self._plan.copied:
                self._copy_packet(packet)
            else:
                self._encode(packet)
        except (av.FFmpegError, ValueError):
            raise MediaFault("has damaged audio") from None

    def _check_order(self, packet: Any) -> None:
        if packet.dts is not None:
            time = packet.dts * packet.time_base
            if time < self._last - _OUT_OF_ORDER_S:
                raise MediaFault(
                    f"has audio whose times go back at {float(self._last):.2f} s, as joined recordings have"
                )
            self._last = max(self._last, time)

    def _copy_packet(self, packet: Any) -> None:
        if not packet.size or packet.dts is None or self._late(packet.pts, packet.time_base) or self._hidden(packet):
            return
        shift = round(self.start / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts -= shift
        packet.stream = self.stream
        self._output.mux(packet)

    def _hidden(self, packet: Any) -> bool:
        """Whether an edit list hides the packet, and it is too far from the start to prime the decoder."""
        if packet.pts is None:
            return False
        return (packet.pts + (packet.duration or 0)) * packet.time_base < self.start - _PRIMING_S

    def _encode(self, packet: Any) -> None:
        for frame in packet.decode():
            if frame.pts is None or self._late(frame.pts, frame.time_base):
                continue
            frame.pts -= round(self.start / frame.time_base)
            self._write_frames(self._resampler.resample(frame))
        if not packet.size:
            self._write_frames(self._resampler.resample(None))
            self._output.mux(self.stream.encode(None))

    def _write_frames(self, frames: list[Any]) -> None:
        for frame in frames:
            self._output.mux(self.stream.encode(frame))

    def _late(self, pts: int | None, time_base: Fraction) -> bool:
        return self._seconds is not None and pts is not None and pts * time_base - self.start >= self._seconds
