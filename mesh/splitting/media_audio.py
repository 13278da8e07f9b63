"""The audio tracks of a video: copied where the output container supports the codec, else encoded."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

    from mesh.splitting.media_plan import AudioPlan
    from mesh.splitting.recordings import Mending

AAC_BITS_A_CHANNEL = 96_000
#: By how much decoded sound of a recording may overlap before it is left out.
_OVERLAP_S = Fraction(1, 100)
#: By how much times may go back before it is said that they do; the muxer and the encoder decide about less.
_OUT_OF_ORDER_S = Fraction(1, 2)
#: How far before the start of the result a packet may end: AAC needs one or two packets to settle.
_PRIMING_S = Fraction(1, 20)


class ChangingAudio(Exception):
    """Copied audio changes its channels or its rate, which a container notes once a track: encode it."""


class Track:
    """Transfers one audio track from one container into another.

    `start` (seconds) of the source becomes 0; audio at `seconds` or later is left out. `mending`: of a recording, whose
    damaged packets are left out and counted. Raises: MediaFault; ChangingAudio.
    """

    def __init__(
        self,
        source: AudioStream,
        output: OutputContainer,
        plan: AudioPlan,
        start: Fraction,
        seconds: Fraction | None,
        mending: Mending | None = None,
    ) -> None:
        self.source, self._output, self.start, self._seconds = source, output, start, seconds
        self._plan, self._mending = plan, mending
        self._converter: Any = None
        self._shape: tuple[str, str, int] | None = None
        """Format, layout and rate that the converter takes."""
        self._framer: Any = None
        self._format = ""
        self._written: int | None = None
        """Decoding time of the last copied packet of a recording."""
        self._head = b""
        """The fixed part of the header of a packet of AAC in a transport stream."""
        self._heard: Fraction | None = None
        """The end of the last decoded sound, seconds."""
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
        reason = f"the container does not support {codec}"
        if codec == self._plan.codec:
            reason = "its channels or its rate change"
        return {"codec": self._plan.codec, "how": f"encoded to {name}: {reason}"}

    def _copied_stream(self) -> Any:
        return self._output.add_stream_from_template(self.source, opaque=True)

    def _encoded_stream(self) -> Any:
        plan = self._plan
        stream: Any = self._output.add_stream(plan.codec, rate=plan.rate, layout=plan.layout)
        context = stream.codec_context
        if plan.codec == "aac":
            stream.bit_rate = AAC_BITS_A_CHANNEL * context.layout.nb_channels
        self._format = context.format.name
        self._framer = self._new_resampler(1024)
        return stream

    def _new_resampler(self, frame_size: int | None = None) -> Any:
        from av.audio.resampler import AudioResampler

        return AudioResampler(self._format, self._plan.layout, self._plan.rate, frame_size=frame_size)

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
            if self._mending is None or not packet.size:
                raise MediaFault("has damaged audio") from None
            self._mending.count_sound(float(self._last))

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
        if self._mending is not None:
            if packet.is_corrupt:
                packet.decode()  # raises an error for a packet that is damaged itself
            if self._written is not None and packet.dts <= self._written:
                return  # the beginning of a joined recording overlaps with the end of the one before
            self._written = packet.dts
            self._check_head(packet)
        shift = round(self.start / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts -= shift
        packet.stream = self.stream
        self._output.mux(packet)

    def _check_head(self, packet: Any) -> None:
        """Raises: ChangingAudio when the header (ADTS) has another profile, rate or number of channels."""
        if self._plan.track.codec != "aac":
            return
        head = bytes(packet)[:4]
        if len(head) < 4 or head[0] != 0xFF or head[1] & 0xF0 != 0xF0:
            return
        head = bytes((head[2] & 0xFD, head[3] & 0xC0))
        if self._head and head != self._head:
            raise ChangingAudio
        self._head = head

    def _hidden(self, packet: Any) -> bool:
        """Whether an edit list hides the packet, and it is too far from the start to prime the decoder."""
        if packet.pts is None:
            return False
        return (packet.pts + (packet.duration or 0)) * packet.time_base < self.start - _PRIMING_S

    def _encode(self, packet: Any) -> None:
        for frame in packet.decode():
            if frame.pts is None or self._late(frame.pts, frame.time_base) or self._overlaps(frame):
                continue
            frame.pts -= round(self.start / frame.time_base)
            self._convert(frame)
        if not packet.size:
            self._convert(None)
            self._write_frames(self._framer.resample(None))
            self._output.mux(self.stream.encode(None))

    def _convert(self, frame: Any) -> None:
        """Convert a frame, or None at the end. A recording may change its channels and its rate within a track."""
        shape = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._converter is not None and shape != self._shape:
            self._frame(self._converter.resample(None))
            self._converter = None
        if frame is None:
            return
        if self._converter is None:
            self._converter, self._shape = self._new_resampler(), shape
        self._frame(self._converter.resample(frame))

    def _frame(self, frames: list[Any]) -> None:
        """Write sound in frames of the encoder's size."""
        unit = Fraction(1, self._plan.rate)
        for frame in frames:
            if frame.time_base != unit and frame.pts is not None:  # the framer takes one unit only
                frame.pts, frame.time_base = round(frame.pts * frame.time_base / unit), unit
            self._write_frames(self._framer.resample(frame))

    def _overlaps(self, frame: Any) -> bool:
        """Whether a frame of a recording belongs to a time that has been heard."""
        begins = frame.pts * frame.time_base
        if self._mending is not None and self._heard is not None and begins < self._heard - _OVERLAP_S:
            return True
        self._heard = begins + Fraction(frame.samples, frame.sample_rate)
        return False

    def _write_frames(self, frames: list[Any]) -> None:
        for frame in frames:
            self._output.mux(self.stream.encode(frame))

    def _late(self, pts: int | None, time_base: Fraction) -> bool:
        return self._seconds is not None and pts is not None and pts * time_base - self.start >= self._seconds
