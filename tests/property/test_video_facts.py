"""The plan for a video's facts: each is kept, converted or dropped, as the table in docs/video.md says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.kinds.video_picture import TURNS, Mastering, Picture, turn_of
from mesh.splitting.media_facts import EXTRAS, Chapter, Facts, Samples, StreamFacts
from mesh.splitting.media_formats import AAC_LAYOUTS, aac_layout, timecode_fits
from mesh.splitting.media_plan import Target, plan, shifted
from mesh.splitting.media_table import BY_FACT, Outcome, as_markdown

ROOT = Path(__file__).parents[2]
CODECS = {
    "audio": ("aac", "pcm_s16be", "dts", "truehd", "unknown"),
    "subtitle": ("subrip", "ass", "mov_text", "webvtt", "hdmv_pgs_subtitle", "dvb_teletext"),
    "video": ("h264", "mjpeg", "png", "bmp"),
    "data": ("bin_data", "klv"),
    "attachment": ("ttf",),
}
names = st.sampled_from(("", "A title", "e"))
times = st.fractions(-100, 100, max_denominator=1000)


@st.composite
def streams(draw: st.DrawFn) -> tuple[StreamFacts, ...]:
    kinds = draw(st.lists(st.sampled_from(list(CODECS)), max_size=8))
    found = [StreamFacts(0, "video", "h264", size=(160, 90))]
    for index, kind in enumerate(kinds, 1):
        cover = ("attached_pic",) if kind == "video" and draw(st.booleans()) else ()
        flags = cover + draw(st.sampled_from(((), ("default",), ("forced", "comment"))))
        found.append(
            StreamFacts(
                index,
                kind,
                draw(st.sampled_from(CODECS[kind])),
                draw(st.sampled_from(("", "eng", "en-US"))),
                draw(names),
                flags,
                layout=draw(st.sampled_from(("stereo", "7.1", "5.1(side)", "12 channels"))) if kind == "audio" else "",
                channels=draw(st.integers(1, 24)) if kind == "audio" else 0,
                rate=draw(st.sampled_from((8000, 44100, 192000))),
                size=draw(st.sampled_from(((0, 0), (32, 32)))),
                readable=draw(st.booleans()),
                hidden=kind == "data" and draw(st.booleans()),
            )
        )
    return tuple(found)


chapters = st.lists(st.builds(Chapter, times, times, names), max_size=4).map(tuple)
pictures = st.builds(
    Picture,
    turn=st.sampled_from(list(TURNS.values())),
    aspect=st.sampled_from(("1/1", "4/3")),
    fields=st.sampled_from(("progressive", "top_first", "bottom_first")),
    colour=st.sampled_from(((2, 2, 2, 0), (9, 16, 9, 1))),
    mastering=st.sampled_from(
        (None, Mastering(red=(1, 1), green=(1, 1), blue=(1, 1), white=(1, 1), luminance=(1000, 1)))
    ),
    light=st.sampled_from((None, (1000, 400))),
    packing=st.none() | st.integers(0, 5),
)
facts = st.builds(
    Facts,
    container=st.just("matroska"),
    picture=pictures,
    samples=st.builds(Samples, st.sampled_from((8, 10, 12)), st.sampled_from(("4:2:0", "RGB")), st.booleans()),
    start=times,
    video=st.just(0),
    streams=streams(),
    chapters=chapters,
    tags=st.dictionaries(
        st.sampled_from(("title", "RATING", "encoder", "location", "location-eng", "GPS", "creation_time")), names
    ).map(lambda tags: tuple(tags.items())),
    extras=st.sets(st.sampled_from(sorted(set(EXTRAS.values())))).map(lambda found: tuple(sorted(found))),
    timecode=st.sampled_from(("", "01:02:03:04", "01:02:03;29", "nonsense")),
    images=st.sampled_from(((), ((1, b"x"), (2, b"y")))),
)
targets = st.builds(
    Target,
    codec=st.sampled_from(("h264", "h265", "av1")),
    container=st.sampled_from(("mp4", "mkv")),
    software=st.booleans(),
    size=st.sampled_from(((160, 90), (160, 96), (90, 160))),
    bits=st.sampled_from((8, 10)),
    audio=st.booleans(),
    location=st.booleans(),
    seconds=st.none() | st.fractions(1, 100, max_denominator=10),
    rate=st.sampled_from((Fraction(24), Fraction(30000, 1001))),
)


@settings(max_examples=50)
@given(facts, targets)
def test_every_track_and_fact_has_exactly_one_fate(source, target):
    made = plan(source, target)
    outcome = made.outcome
    entries = [*outcome.kept, *outcome.converted, *outcome.dropped]
    for fate in ("kept", "converted", "dropped"):
        for entry in getattr(outcome, fate):
            row = BY_FACT[entry.split(":")[0].split(";")[0]]
            assert fate in (row.mp4 if target.container == "mp4" else row.mkv)
    tracks = ("audio", "text subtitles", "bitmap subtitles", "other subtitles", "cover picture", "attachments")
    tracks = (*tracks, "further video tracks", "data tracks")
    listed = [entry for entry in entries if entry.split(":")[0] in tracks]
    assert len(listed) == len([stream for stream in source.streams if not stream.hidden]) - 1
    assert len(entries) == len(set(entries)) or len(made.images) > 1
    if not target.location:
        assert not any("location" in tag for tag in made.tags)
    carried = [found.track.index for found in made.audio] + [track.index for track, _ in made.subtitles]
    assert all(source.streams[index].readable for index in carried)


@settings(max_examples=50)
@given(chapters, times, st.none() | st.fractions(0, 50, max_denominator=10))
def test_chapters_stay_inside_the_result(source, start, seconds):
    found = shifted(source, start, seconds)
    assert all(0 <= chapter.start < chapter.end for chapter in found)
    assert all(seconds is None or chapter.end <= seconds for chapter in found)
    whole = [chapter for chapter in source if start <= chapter.start < chapter.end]
    if seconds is None:
        shown = [(chapter.start - start, chapter.end - start, chapter.title) for chapter in whole]
        assert set(shown) <= {(chapter.start, chapter.end, chapter.title) for chapter in found}


@given(st.integers(1, 64), st.sampled_from(("", "3.1", "4.1", "6.1", "7.1(wide)", "5.1(side)", "hexagonal", "22.2")))
def test_no_channel_is_lost_up_to_eight(channels, layout):
    """The exact layout has as many channels as its name says; others depend on their number only."""
    known = {"3.1": 4, "4.1": 5, "6.1": 7, "7.1(wide)": 8, "5.1(side)": 6, "hexagonal": 6, "22.2": 24}
    count = known.get(layout, channels)
    found = aac_layout(layout, count)
    size = next(number for number, names in AAC_LAYOUTS.items() if found in names)
    assert size >= min(count, 8)
    assert all(aac_layout(name, number) == name for number, names in AAC_LAYOUTS.items() for name in names)


@given(st.sampled_from(list(TURNS)), st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_a_turn_is_the_same_at_any_scale(signs, first, second):
    a, b, c, d = (sign * scale for sign, scale in zip(signs, (first, first, second, second), strict=True))
    larger, less = max(first, second), min(first, second)
    if less > larger * 0.02:
        assert turn_of((a, b, 0, c, d, 0, 0, 0, 1 << 30)) == TURNS[signs]


def test_a_timecode_that_skips_numbers_needs_its_rate():
    assert timecode_fits("01:02:03;04", Fraction(30000, 1001)) and timecode_fits("01:02:03:23", Fraction(24))
    assert not timecode_fits("01:02:03;04", Fraction(25)) and not timecode_fits("01:02:03:24", Fraction(24))


def test_the_page_shows_the_table():
    assert as_markdown() in (ROOT / "docs" / "video.md").read_text()


def test_a_list_of_facts_is_no_longer_than_a_person_reads():
    outcome = Outcome("mkv")
    for number in range(1000):
        outcome.add("kept", "tags", f"{number} " + "x" * 10_000)
    kept = outcome.as_info()["kept"]
    assert len(kept) == 101 and kept[-1] == "and 900 more" and all(len(text) <= 200 for text in kept)
