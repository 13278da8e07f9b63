"""What becomes of each fact of a video in each container: the table that docs/video.md shows.

Results list each fact that a file has under `kept`, `converted` or `dropped`, with the name that this table gives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Of a text in a result, and of a list of them.
_LONGEST, _MOST = 200, 100
KEPT, CONVERTED, DROPPED, REFUSED = "kept", "converted", "dropped", "refused"


@dataclass(frozen=True)
class Row:
    """One fact; several fates are told apart by the note."""

    fact: str
    mp4: tuple[str, ...]
    mkv: tuple[str, ...]
    note: str


def _row(fact: str, mp4: str, mkv: str, note: str) -> Row:
    return Row(fact, tuple(mp4.split(", ")), tuple(mkv.split(", ")), note)


ROWS = (
    _row("orientation", CONVERTED, CONVERTED,
         "a display matrix of right angles, also a mirrored one, is applied to the pictures"),
    _row("display matrix", KEPT, KEPT, "of any other angle: in the container"),
    _row("pixel aspect", KEPT, "kept, dropped",
         "turned and scaled with the picture; the container's goes before the stream's; AV1 has none in its data, and "
         "PyAV can't write that of an mkv"),
    _row("field order", "kept, dropped", "kept, dropped",
         "in the stream by libx264, in the container for H.265 and AV1; dropped after a turn sideways, by a hardware "
         "encoder for H.264, and in H.264 whose height is no multiple of 4"),
    _row("colours", KEPT, KEPT, "primaries, transfer (also PQ and HLG), matrix and range; RGB becomes BT.709"),
    _row("mastering display", "kept, dropped", "kept, dropped", "in the stream by the software encoders"),
    _row("light level", "kept, dropped", "kept, dropped", "as the mastering display"),
    _row("bit depth", CONVERTED, CONVERTED, "to 8 or 10 bits, as `pixel_format` says"),
    _row("chroma samples", CONVERTED, CONVERTED, "to 4:2:0"),
    _row("transparency", DROPPED, DROPPED, "these encoders have none"),
    _row("start time", CONVERTED, CONVERTED,
         "the first picture or sound is at 0, also where the source begins below 0; the distance of both is kept"),
    _row("audio", "kept, converted, dropped", "kept, converted, dropped",
         "copied where the container has the codec, else encoded to AAC, in an mkv big-endian PCM, A-law and µ-law to "
         "PCM without loss; dropped with `audio: drop`, and where it can't be decoded"),
    _row("channel layout", "kept, converted", "kept, converted",
         "of encoded audio: mono, stereo, 2.1, 3.0, 4.0, quad, 5.0, 5.1 and 7.1, others to the next larger one"),
    _row("track title", KEPT, KEPT, "of the video, of audio and of subtitles"),
    _row("language", "kept, converted, dropped", KEPT, "an mp4 has codes of three letters: en becomes eng"),
    _row("disposition", "kept, dropped", "kept, dropped",
         "default, dub, comment, forced, for the hard of hearing and of seeing, in an mkv original, in an mp4 captions "
         "and descriptions; an mp4 always has one default track a kind"),
    _row("text subtitles", "kept, converted", "kept, converted",
         "to mov_text in an mp4, without placement and fonts; mov_text to SubRip in an mkv; others are copied"),
    _row("bitmap subtitles", DROPPED, KEPT, "PGS, DVD and DVB"),
    _row("other subtitles", DROPPED, DROPPED, "teletext, TTML and unknown ones"),
    _row("closed captions", "kept, dropped", "kept, dropped", "in the stream by libx264 and libx265"),
    _row("chapters", KEPT, KEPT, "with their titles, cut to the length of the result"),
    _row("creation time", KEPT, KEPT, "of the file"),
    _row("tags", "kept, dropped", KEPT, "title, artist, date, comment and others; an mp4 has only those of iTunes"),
    _row("location", "kept, dropped", "kept, dropped", "where it was filmed; dropped unless `location` is `keep`"),
    _row("timecode", "kept, dropped", "kept, dropped",
         "of a timecode track or tag; dropped where only the stream has it, or the frame rate is another"),
    _row("cover picture", KEPT, KEPT, "JPEG and PNG"),
    _row("attachments", DROPPED, KEPT, "such as the fonts of subtitles"),
    _row("further video tracks", DROPPED, DROPPED, "the first one is encoded"),
    _row("data tracks", DROPPED, DROPPED, "telemetry and others"),
    _row("stereoscopic layout", "kept, dropped", "kept, dropped",
         "in the stream by libx264, unless the eyes are exchanged"),
    _row("spherical projection", DROPPED, DROPPED, "no encoder here writes it"),
    _row("Dolby Vision", DROPPED, DROPPED, "no encoder here writes it; the base layer is encoded"),
    _row("HDR10+", DROPPED, DROPPED, "no encoder here writes it; the static HDR10 data is kept"),
    _row("HDR Vivid", DROPPED, DROPPED, "no encoder here writes it"),
    _row("ICC profile", DROPPED, DROPPED, "no encoder here writes it"),
    _row("ambient viewing environment", DROPPED, DROPPED, "no encoder here writes it"),
    _row("references to other files", REFUSED, REFUSED, "playlists, external tracks"),
    _row("clock jumps", CONVERTED, CONVERTED,
         "of transport and program streams: back by more than 0.1 s or forward by more than 10 s, as joined recordings "
         "have; the sections follow each other"),
    _row("damaged pictures", CONVERTED, CONVERTED,
         "of transport and program streams: the decoder completes them from others, or leaves them out; "
         "`damaged_frames` counts them"),
    _row("damaged sound", DROPPED, DROPPED, "of transport and program streams: `damaged_sound` counts the packets"),
    _row("damage, truncation", REFUSED, REFUSED, "as the decoder and the length in the file show it, in other formats"),
)  # fmt: skip
BY_FACT = {row.fact: row for row in ROWS}


@dataclass
class Outcome:
    """The facts of one file by what becomes of them in a container, as short texts: "fact: detail; reason"."""

    container: str
    kept: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def add(self, fate: str, fact: str, detail: str = "", reason: str = "") -> None:
        """Record a fact. Raises: ValueError for what the table does not provide."""
        row = BY_FACT[fact]
        if fate not in (row.mp4 if self.container == "mp4" else row.mkv):
            raise ValueError(f"{fact} is not {fate} in {self.container}")
        text = ": ".join(part for part in (fact, detail) if part)
        getattr(self, fate).append("; ".join(part for part in (text[:_LONGEST], reason) if part))

    def as_info(self) -> dict[str, list[str]]:
        """The fields of a result. A file may have any number of tags: the first ones are listed, then their number."""
        return {fate: _shortened(getattr(self, fate)) for fate in (KEPT, CONVERTED, DROPPED)}


def _shortened(texts: list[str]) -> list[str]:
    rest = len(texts) - _MOST
    return texts if rest <= 0 else [*texts[:_MOST], f"and {rest} more"]


def as_markdown() -> str:
    """The table as docs/video.md shows it."""
    lines = ["| fact | mp4 | mkv | how |", "|---|---|---|---|"]
    lines += [f"| {row.fact} | {', '.join(row.mp4)} | {', '.join(row.mkv)} | {row.note} |" for row in ROWS]
    return "\n".join(lines) + "\n"
