"""Sound that goes along with a video: copied as it is where the new container can hold it, else encoded to AAC."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

#: What players take in an mp4, and what Matroska has a name for.
HELD: dict[str, frozenset[str]] = {
    "mp4": frozenset(("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")),
    "mkv": frozenset(
        (
            "aac",
            "mp3",
            "mp2",
            "ac3",
            "eac3",
            "dts",
            "truehd",
            "alac",
            "opus",
            "vorbis",
            "flac",
            "pcm_s16le",
            "pcm_s24le",
            "pcm_s32le",
            "pcm_f32le",
            "pcm_u8",
        )
    ),
}
AAC_BITS_A_CHANNEL = 96_000
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}


class Track:
    """One track of sound on its way from one container into another.

    `start` (seconds) of the source becomes 0; what comes at `seconds` or later is left out. Raises: MediaFault.
    """

    def __init__(
        self, source: AudioStream, output: OutputContainer, container: str, start: Fraction, seconds: Fraction | None
    ) -> None:
        self.source, self._output, self.start, self._seconds = source, output, start, seconds
        context = source.codec_context
        if context is None:
            raise MediaFault("has sound in a code that can't be read")
        self.codec = context.codec.canonical_name
        self.copied = self.codec in HELD[container]
        self._resampler: Any = None
        self._stream = self._copy() if self.copied else self._aac()
        if source.language:
            self._stream.metadata["language"] = source.language

    @property
    def how(self) -> dict[str, str]:
        """For the result."""
        if self.copied:
            return {"codec": self.codec, "how": "copied"}
        return {"codec": "aac", "how": f"encoded to AAC: the container can't hold {self.codec}"}

    def _copy(self) -> Any:
        return self._output.add_stream_from_template(self.source, opaque=True)

    def _aac(self) -> Any:
        from av.audio.resampler import AudioResampler

        context = self.source.codec_context
        rate = context.sample_rate if context.sample_rate in AAC_RATES else 48000
        # By their number: a file may leave open which channel is which, and AAC may not.
        layout = AAC_LAYOUTS.get(context.layout.nb_channels, "stereo")
        stream = self._output.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate = AAC_BITS_A_CHANNEL * stream.codec_context.layout.nb_channels
        self._resampler = AudioResampler("fltp", layout, rate, frame_size=1024)
        return stream

    def take(self, packet: Any) -> None:
        """One packet of the source, in order; an empty one is the last."""
        import av

        try:
            if self.copied:
                self._move(packet)
            else:
                self._encode(packet)
        except (av.FFmpegError, ValueError):
            raise MediaFault("has sound that is damaged") from None

    def _move(self, packet: Any) -> None:
        if not packet.size or packet.dts is None or self._late(packet.pts, packet.time_base):
            return
        shift = round(self.start / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts -= shift
        packet.stream = self._stream
        self._output.mux(packet)

    def _encode(self, packet: Any) -> None:
        for frame in packet.decode():
            if frame.pts is None or self._late(frame.pts, frame.time_base):
                continue
            frame.pts -= round(self.start / frame.time_base)
            self._write(self._resampler.resample(frame))
        if not packet.size:
            self._write(self._resampler.resample(None))
            self._output.mux(self._stream.encode(None))

    def _write(self, frames: list[Any]) -> None:
        for frame in frames:
            self._output.mux(self._stream.encode(frame))

    def _late(self, pts: int | None, time_base: Fraction) -> bool:
        return self._seconds is not None and pts is not None and pts * time_base - self.start >= self._seconds
