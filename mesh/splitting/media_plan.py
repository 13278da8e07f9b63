"""Decides what becomes of each fact of a video in its result (pure), by the table of `media_table`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mesh.kinds.video_picture import SIDEWAYS
from mesh.splitting.media_facts import Chapter, Facts, StreamFacts
from mesh.splitting.media_formats import (
    AAC_LAYOUTS,
    AAC_RATES,
    BITMAP_SUBTITLES,
    COPIED_TEXT,
    COVERS,
    DISPOSITIONS,
    ENCODED_TEXT,
    HELD,
    MP4_TAGS,
    RAW,
    TEXT_SUBTITLES,
    aac_layout,
    timecode_fits,
)
from mesh.splitting.media_languages import language_in
from mesh.splitting.media_table import CONVERTED, DROPPED, KEPT, Outcome

#: Tags that describe the file instead of the film, and those that have a place of their own.
_TECHNICAL = frozenset((
    "encoder", "major_brand", "minor_version", "compatible_brands", "duration", "handler_name", "vendor_id",
    "timecode", "creation_time", "metadatacreator", "hasaudio", "hasvideo", "haskeyframes", "hasmetadata",
    "canseektoend", "datasize", "videosize", "audiosize", "lasttimestamp", "lastkeyframetimestamp",
    "application_platform", "company_name", "file_package_umid", "generation_uid", "material_package_umid",
    "modification_date", "operational_pattern_ul", "product_name", "product_uid", "product_version",
    "product_version_num", "project_name", "toolkit_version_num", "uid",
    "lastkeyframelocation", "_statistics_tags", "_statistics_writing_app", "_statistics_writing_date_utc",
))  # fmt: skip
_PLACES = ("location", "gps", "latitude", "longitude")


@dataclass(frozen=True)
class Target:
    """The settings of the result that matter for its facts."""

    codec: str
    """h264, h265 or av1"""
    container: str
    """mp4 or mkv"""
    software: bool = True
    """Whether a software encoder is used."""
    size: tuple[int, int] = (0, 0)
    """Of the result, pixels."""
    bits: int = 8
    """Per sample of the result."""
    audio: bool = True
    """Whether the audio is kept."""
    copy: bool = True
    """Whether audio may be copied."""
    location: bool = False
    """Whether the place where it was filmed is kept."""
    seconds: Fraction | None = None
    """The greatest length of the result."""
    rate: Fraction = Fraction(25)
    """Frames per second of the result."""


@dataclass(frozen=True)
class AudioPlan:
    """How one audio track is transferred."""

    track: StreamFacts
    copied: bool
    codec: str = ""
    """aac, or an uncompressed one, of audio that is not copied."""
    layout: str = ""
    rate: int = 0
    """Of encoded audio."""


@dataclass(frozen=True)
class Plan:
    """What is transferred beside the pictures, and what becomes of every fact."""

    container: str
    start: Fraction
    seconds: Fraction | None
    video: StreamFacts
    matrix: tuple[int, ...] | None
    audio: tuple[AudioPlan, ...]
    subtitles: tuple[tuple[StreamFacts, bool], ...]
    """(track, whether it is copied)"""
    images: tuple[tuple[StreamFacts, bytes], ...]
    """The cover pictures with their contents."""
    attachments: tuple[int, ...]
    chapters: tuple[Chapter, ...]
    """Their times count from the start of the result."""
    tags: dict[str, str]
    timecode: str
    outcome: Outcome


def plan(facts: Facts, target: Target) -> Plan:
    """The plan for a result."""
    outcome = Outcome(target.container)
    _note_picture(facts, target, outcome)
    audio = _audio(facts, target, outcome)
    subtitles = _subtitles(facts, target, outcome)
    video = next(stream for stream in facts.streams if stream.index == facts.video)
    for track in (video, *(found.track for found in audio), *(track for track, _ in subtitles)):
        _note_track(track, target, outcome)
    images, attachments = _images(facts, outcome), _attachments(facts, target, outcome)
    _note_other_tracks(facts, {stream.index for stream, _ in images}, outcome)
    return Plan(
        container=target.container,
        start=facts.start,
        seconds=target.seconds,
        video=video,
        matrix=facts.picture.matrix,
        audio=audio,
        subtitles=subtitles,
        images=images,
        attachments=attachments,
        chapters=_chapters(facts, target, outcome),
        tags=_tags(facts, target, outcome),
        timecode=facts.timecode if timecode_fits(facts.timecode, target.rate) else "",
        outcome=outcome,
    )


def _note_picture(facts: Facts, target: Target, outcome: Outcome) -> None:
    picture, samples = facts.picture, facts.samples
    if picture.turn != "none":
        outcome.add(CONVERTED, "orientation", f"{picture.turn} applied to the pictures")
    if picture.matrix is not None:
        outcome.add(KEPT, "display matrix")
    if picture.pixel_aspect != 1:
        lost = (target.codec, target.container) == ("av1", "mkv")
        reason = "PyAV can't write it to an mkv, and AV1 has none in its data" if lost else ""
        outcome.add(DROPPED if lost else KEPT, "pixel aspect", picture.aspect, reason)
    if picture.interlaced:
        reason = field_loss(facts, target)
        outcome.add(DROPPED if reason else KEPT, "field order", picture.fields, reason)
    if any(number != unknown for number, unknown in zip(picture.colour, (2, 2, 2, 0), strict=True)):
        outcome.add(KEPT, "colours", "/".join(str(number) for number in picture.colour))
    fate, reason = (KEPT, "") if target.software else (DROPPED, "a hardware encoder doesn't write it")
    if picture.mastering is not None:
        outcome.add(fate, "mastering display", reason=reason)
    if picture.light is not None:
        outcome.add(fate, "light level", f"{picture.light[0]}, {picture.light[1]} cd/m²", reason)
    if picture.packing is not None:
        held = target.codec == "h264" and target.software
        outcome.add(
            KEPT if held else DROPPED, "stereoscopic layout", reason="" if held else "the encoder doesn't write it"
        )
    if samples.bits != target.bits:
        outcome.add(CONVERTED, "bit depth", f"{samples.bits} to {target.bits} bits")
    if samples.chroma != "4:2:0":
        outcome.add(CONVERTED, "chroma samples", f"{samples.chroma} to 4:2:0")
    if samples.alpha:
        outcome.add(DROPPED, "transparency", reason="the codec has none here")
    for extra in facts.extras:
        if extra == "closed captions" and target.codec != "av1" and target.software:
            outcome.add(KEPT, extra)
        elif extra == "timecode":
            if not facts.timecode:
                outcome.add(DROPPED, extra, reason="the container has none")
        else:
            outcome.add(DROPPED, extra, reason="the encoder doesn't write it")
    if facts.start:
        outcome.add(CONVERTED, "start time", f"{float(facts.start):.3f} s to 0")
    if facts.timecode:
        fits = timecode_fits(facts.timecode, target.rate)
        outcome.add(
            KEPT if fits else DROPPED, "timecode", facts.timecode, "" if fits else "it doesn't fit the frame rate"
        )


def field_loss(facts: Facts, target: Target) -> str:
    """Why the order of fields can't be kept; "" when it can."""
    if facts.picture.turn in SIDEWAYS:
        return "the picture is turned sideways"
    if target.codec != "h264":
        return ""
    if not target.software:
        return "a hardware encoder doesn't write it"
    return "" if target.size[1] % 4 == 0 else "H.264 needs a height that is a multiple of 4"


def _audio(facts: Facts, target: Target, outcome: Outcome) -> tuple[AudioPlan, ...]:
    found = []
    for track in facts.of_kind("audio"):
        detail = f"{track.name}, {track.codec or 'unknown codec'}"
        if not target.audio:
            outcome.add(DROPPED, "audio", detail, "as asked for")
        elif not track.readable:
            outcome.add(DROPPED, "audio", detail, "it can't be decoded")
        elif target.copy and track.codec in HELD[target.container]:
            outcome.add(KEPT, "audio", detail)
            outcome.add(KEPT, "channel layout", f"{track.name}, {track.layout}")
            found.append(AudioPlan(track, copied=True))
        else:
            found.append(_encoded_audio(track, detail, target, outcome))
    return tuple(found)


def _encoded_audio(track: StreamFacts, detail: str, target: Target, outcome: Outcome) -> AudioPlan:
    codec = RAW[target.container].get(track.codec, "aac")
    unnamed = "channels" in track.layout
    usual = aac_layout("", track.channels)
    layout, rate = track.layout, track.rate
    if codec == "aac":
        layout, rate = aac_layout(track.layout, track.channels), rate if rate in AAC_RATES else 48000
    elif unnamed and track.channels in AAC_LAYOUTS:
        layout = usual
    samples = "" if rate == track.rate else f", {track.rate} to {rate} samples/s"
    held = track.codec in HELD[target.container]
    reason = "it changes its channels or its rate" if held else f"{target.container} doesn't hold it"
    outcome.add(CONVERTED, "audio", f"{detail} to {codec}{samples}", reason)
    same = layout in (track.layout, usual if unnamed else "")
    change = layout if same else f"{track.layout} to {layout}"
    outcome.add(KEPT if same else CONVERTED, "channel layout", f"{track.name}, {change}")
    return AudioPlan(track, copied=False, codec=codec, layout=layout, rate=rate)


def _subtitles(facts: Facts, target: Target, outcome: Outcome) -> tuple[tuple[StreamFacts, bool], ...]:
    found = []
    for track in facts.of_kind("subtitle"):
        detail = f"{track.name}, {track.codec or 'unknown codec'}"
        if track.codec in TEXT_SUBTITLES and track.readable:
            copied = track.codec in COPIED_TEXT[target.container]
            change = "" if copied else f" to {ENCODED_TEXT[target.container]}"
            outcome.add(KEPT if copied else CONVERTED, "text subtitles", detail + change)
            found.append((track, copied))
        elif track.codec in BITMAP_SUBTITLES and track.readable:
            if target.container == "mkv":
                outcome.add(KEPT, "bitmap subtitles", detail)
                found.append((track, True))
            else:
                outcome.add(DROPPED, "bitmap subtitles", detail, "an mp4 holds only text")
        else:
            outcome.add(DROPPED, "other subtitles", detail, "not supported")
    return tuple(found)


def _note_track(track: StreamFacts, target: Target, outcome: Outcome) -> None:
    if track.title:
        outcome.add(KEPT, "track title", f"{track.name}, {track.title}")
    if track.language:
        code = language_in(target.container, track.language)
        fate = KEPT if code == track.language else CONVERTED if code else DROPPED
        change = f" to {code}" if fate == CONVERTED else ""
        outcome.add(fate, "language", track.name + change, "" if code else "an mp4 has codes of three letters")
    held = DISPOSITIONS[target.container]
    if kept := [name for name in track.dispositions if name in held]:
        outcome.add(KEPT, "disposition", f"{track.name}, {' '.join(kept)}")
    if lost := [name for name in track.dispositions if name not in held]:
        outcome.add(DROPPED, "disposition", f"{track.name}, {' '.join(lost)}", f"{target.container} has none")


def _images(facts: Facts, outcome: Outcome) -> tuple[tuple[StreamFacts, bytes], ...]:
    contents: dict[int, bytes] = dict(facts.images)
    found = tuple(
        (stream, contents[stream.index])
        for stream in facts.of_kind("video")
        if stream.cover and stream.codec in COVERS and all(stream.size) and stream.index in contents
    )
    for stream, _ in found:
        outcome.add(KEPT, "cover picture", stream.codec)
    return found


def _attachments(facts: Facts, target: Target, outcome: Outcome) -> tuple[int, ...]:
    found = []
    for stream in facts.of_kind("attachment"):
        held = target.container == "mkv"
        outcome.add(KEPT if held else DROPPED, "attachments", stream.name, "" if held else "an mp4 has none")
        if held:
            found.append(stream.index)
    return tuple(found)


def _note_other_tracks(facts: Facts, covers: set[int], outcome: Outcome) -> None:
    for stream in facts.of_kind("video"):
        if stream.index not in (facts.video, *covers):
            outcome.add(DROPPED, "further video tracks", f"{stream.name}, {stream.codec}", "the first one is encoded")
    for stream in facts.streams:
        if stream.kind not in ("video", "audio", "subtitle", "attachment") and not stream.hidden:
            outcome.add(DROPPED, "data tracks", f"{stream.name}, {stream.codec or 'unknown'}", "not supported")


def _chapters(facts: Facts, target: Target, outcome: Outcome) -> tuple[Chapter, ...]:
    chapters = shifted(facts.chapters, facts.start, target.seconds)
    if chapters:
        outcome.add(KEPT, "chapters", str(len(chapters)))
    return chapters


def shifted(chapters: Sequence[Chapter], start: Fraction, seconds: Fraction | None) -> tuple[Chapter, ...]:
    """The chapters of a result that begins at `start` of the source and ends after `seconds`."""
    found = []
    for chapter in chapters:
        begins, ends = max(Fraction(0), chapter.start - start), chapter.end - start
        if seconds is not None:
            ends = min(ends, seconds)
        if begins < ends:
            found.append(Chapter(begins, ends, chapter.title))
    return tuple(found)


def _tags(facts: Facts, target: Target, outcome: Outcome) -> dict[str, str]:
    given = {key.lower(): value for key, value in facts.tags}
    found: dict[str, str] = {}
    if created := given.get("creation_time"):
        outcome.add(KEPT, "creation time", created)
        found["creation_time"] = created
    places = {key: value for key, value in given.items() if any(word in key for word in _PLACES)}
    if places:
        found |= _place(places, target, outcome)
    for key, value in sorted(given.items()):
        if key in places or key in _TECHNICAL or given.get(key.rpartition("-")[0]) == value:
            continue
        held = target.container == "mkv" or key in MP4_TAGS
        outcome.add(KEPT if held else DROPPED, "tags", key, "" if held else "an mp4 has no place for it")
        if held:
            found[key] = value
    return found


def _place(places: dict[str, str], target: Target, outcome: Outcome) -> dict[str, str]:
    place = next((value for key, value in sorted(places.items()) if "location" in key and value[:1] in "+-"), "")
    if not target.location:
        outcome.add(DROPPED, "location", reason="for privacy; set location to keep")
    elif place:
        outcome.add(KEPT, "location", place)
        return {"location": place}
    else:
        outcome.add(DROPPED, "location", reason="it is not written as coordinates")
    return {}
