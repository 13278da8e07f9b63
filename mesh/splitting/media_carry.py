"""Transfers all that a result has beside its pictures: audio, subtitles, chapters, tags, covers and attachments."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from mesh.splitting.media_audio import Track
from mesh.splitting.media_formats import COVERS, ENCODED_TEXT
from mesh.splitting.media_languages import language_in
from mesh.splitting.media_plan import Plan
from mesh.splitting.media_subtitles import SubtitleTrack

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

    from mesh.splitting.media_facts import StreamFacts
    from mesh.splitting.recordings import Mending

_CHAPTER_UNIT = Fraction(1, 1000)


class Carrier:
    """Adds the streams of a plan to `output` and writes their packets. `video`: the output's video stream.

    The caller adds the video stream first, and passes the packets of `sources` in the order of the file, the last of
    each being empty. `mending`: of a recording. Raises: MediaFault.
    """

    def __init__(
        self, plan: Plan, source: InputContainer, output: OutputContainer, video: Any, mending: Mending | None = None
    ) -> None:
        self._mending = mending
        self._plan, self._output, self.outcome = plan, output, plan.outcome
        streams: dict[int, Any] = {stream.index: stream for stream in source.streams}
        describe(video, plan.video, plan.container)
        if plan.matrix is not None:
            video.set_display_matrix(plan.matrix)
        if plan.timecode:
            video.metadata["timecode"] = plan.timecode
        self.audio: list[Track] = []
        self._tracks: dict[int, Track | SubtitleTrack] = {}
        for audio in plan.audio:
            track = Track(streams[audio.track.index], output, audio, plan.start, plan.seconds, mending)
            self.audio.append(track)
            self._add(audio.track, track)
        encoder = ENCODED_TEXT[plan.container]
        for facts, copied in plan.subtitles:
            source_stream = streams[facts.index]
            self._add(facts, SubtitleTrack(source_stream, output, encoder, copied, plan.start, plan.seconds))
        self.sources = tuple(streams[index] for index in self._tracks)
        for index in plan.attachments:
            font = streams[index]
            output.add_attachment(font.name or "attachment", font.mimetype or "application/octet-stream", font.data)
        self._covers = self._add_images()
        output.metadata.update(plan.tags)
        self._add_chapters()

    def _add(self, facts: StreamFacts, track: Track | SubtitleTrack) -> None:
        describe(track.stream, facts, self._plan.container)
        self._tracks[facts.index] = track

    def _add_images(self) -> list[tuple[Any, bytes]]:
        """Add the cover pictures: in an mkv they are attachments, in an mp4 streams, which are returned."""
        from av.stream import Disposition

        added = []
        for facts, contents in self._plan.images:
            if self._plan.container == "mkv":
                self._output.add_attachment(*COVERS[facts.codec], contents)
                continue
            stream = self._output.add_mux_stream(facts.codec, width=facts.size[0], height=facts.size[1])
            stream.disposition = Disposition.attached_pic
            added.append((stream, contents))
        return added

    def _add_chapters(self) -> None:
        self._output.set_chapters([
            {
                "id": number,
                "start": round(chapter.start / _CHAPTER_UNIT),
                "end": round(chapter.end / _CHAPTER_UNIT),
                "time_base": _CHAPTER_UNIT,
                "metadata": {"title": chapter.title} if chapter.title else {},
            }
            for number, chapter in enumerate(self._plan.chapters, 1)
        ])  # fmt: skip

    def write(self, packet: Any) -> None:
        """Transfer the next packet of the file, unless it is of a stream that is left out."""
        track = self._tracks.get(packet.stream.index)
        if track is not None:
            track.write(packet)

    def finish(self) -> None:
        """Write the cover pictures, when all other packets are written, and list what was mended."""
        from av import Packet

        if self._mending is not None:
            self._mending.note(self.outcome)
        for stream, contents in self._covers:
            packet = Packet(contents)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 0
            packet.is_keyframe = True
            self._output.mux(packet)


def describe(stream: Any, facts: StreamFacts, container: str) -> None:
    """Give an output stream the title, language and dispositions of its source."""
    from av.stream import Disposition

    # Members that are flags of FFmpeg, by name.
    flags = [Disposition[name] for name in facts.dispositions if name in Disposition.__members__]
    stream.disposition = reduce(or_, flags, Disposition(0))
    if language := language_in(container, facts.language):
        stream.metadata["language"] = language
    if facts.title:
        stream.metadata["title"] = facts.title
        if container == "mp4":
            # The name of the handler is what most players show as the title of a track.
            stream.metadata["handler_name"] = facts.title
