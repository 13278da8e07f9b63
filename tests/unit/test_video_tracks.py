"""What a video has besides its pictures: single and chunked encoding carry the same tracks, titles and tags."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest
from av.stream import Disposition

from mesh.splitting.media_formats import DISPOSITIONS
from tests.encodings import encoded, every_container, every_way, facts_in, made
from tests.films import PGS, Film, Sound, Subtitles, begun_later, jpeg, samples, see, tones
from tests.videos import read

FILM = Film(
    sounds=(
        Sound(language="eng"),
        Sound(language="deu", title="Commentary", flags=Disposition.default | Disposition.comment),
    ),
    subtitles=(
        Subtitles(((200, 300, "Hello"), (600, 200, "Bye")), language="fra", flags=Disposition.forced),
        Subtitles(((200, 300, "bitmap"),), codec="hdmv_pgs_subtitle"),
    ),
    chapters=((0, 400, "One"), (400, 1000, "Two")),
    tags={
        "title": "A film", "artist": "Somebody", "rating": "5", "location": "+52.5200+013.4050/",
        "creation_time": "2020-01-02T03:04:05.000000Z",
    },
    video_tags={"language": "eng", "title": "The picture", "timecode": "01:02:03:04"},
    cover=jpeg(),
    font=b"a font",
    second_video=True,
)  # fmt: skip

#: Of pictures.
UNUSUAL = (Disposition.attached_pic, Disposition.timed_thumbnails, Disposition.still_image)


@every_way
@every_container
def test_tracks_titles_chapters_and_tags_are_carried(way, container, tmp_path):
    result, info = encoded(way, FILM.data(), tmp_path, container=container, location="keep")
    seen = see(result)
    kinds = [kind for kind, *_ in seen.tracks]
    text = {"mp4": "mov_text", "mkv": "subrip"}[container]
    assert seen.tracks[0][:4] == ("video", "h264", "eng", "The picture")
    first, second = seen.tracks[1:3]
    assert first[:4] == ("audio", "aac", "eng", "") and not first[4] & Disposition.default
    assert second[:4] == ("audio", "aac", "deu", "Commentary")
    assert second[4] == Disposition.default | Disposition.comment
    assert seen.tracks[3][:3] == ("subtitle", text, "fra") and seen.tracks[3][4] & Disposition.forced
    shift = min(seen.starts)  # an mkv begins at the priming of the AAC
    near = [[start - round(shift * 1000), length, line] for start, length, line in seen.texts[0]]
    assert [row[1:] for row in near] == [[300, "Hello"], [200, "Bye"]]
    assert abs(near[0][0] - 200) <= 2 + 1024 / 48 and seen.chapters == [(0, 400, "One"), (400, 1000, "Two")]
    assert {"title": "A film", "artist": "Somebody", "creation_time": "2020-01-02T03:04:05.000000Z"}.items() <= (
        seen.tags.items()
    )
    assert seen.tags["location"] == "+52.5200+013.4050/" and seen.covers == [FILM.cover]
    dropped = {"further video tracks", "tags", "attachments", "bitmap subtitles"} if container == "mp4" else set()
    assert facts_in(info, "dropped") == (dropped or {"further video tracks"})
    assert any("rating" in entry for entry in info["dropped"]) is (container == "mp4") is ("rating" not in seen.tags)
    assert seen.fonts == ([] if container == "mp4" else [FILM.font])
    assert kinds.count("subtitle") == (1 if container == "mp4" else 2)
    assert list(seen.packets.values()) == ([] if container == "mp4" else [[PGS]])
    assert facts_in(info, "converted") == ({"text subtitles"} if container == "mp4" else set())
    assert {"audio", "channel layout", "language", "track title", "disposition", "chapters", "cover picture"} <= (
        facts_in(info, "kept")
    )
    assert facts_in(info, "kept") >= {"creation time", "location", "colours", "timecode"}
    with av.open(str(result)) as file:
        about = {key.lower(): value for key, value in file.streams.video[0].metadata.items()}
        assert about["timecode"] == "01:02:03:04"


def test_the_place_of_filming_is_dropped_unless_asked_for(tmp_path):
    film = Film(tags={"location": "+52.5200+013.4050/", "title": "T"}, frames=5)
    result, info = encoded("single", film.data(), tmp_path)
    assert "location" not in see(result).tags and see(result).tags["title"] == "T"
    assert [entry for entry in info["dropped"] if entry.startswith("location")]
    assert b"52.52" not in result.read_bytes()


@every_way
@pytest.mark.parametrize(
    ("layout", "expected"),
    [("mono", "mono"), ("2.1", "2.1"), ("quad", "quad"), ("5.1(side)", "5.1"), ("6.1", "7.1"), ("7.1", "7.1")],
)
def test_pcm_keeps_its_channels_in_an_mp4(way, layout, expected, tmp_path):
    data = Film("mov", frames=25, sounds=(Sound("pcm_s16le", layout),)).data()
    result, info = encoded(way, data, tmp_path)
    assert see(result).layouts == [expected]
    assert facts_in(info, "converted") == {"audio"} | ({"channel layout"} if layout != expected else set())
    if layout == "6.1":
        return  # its one channel at the back becomes two
    bass = {"2.1": 2, "5.1(side)": 3, "7.1": 3}.get(layout)  # AAC holds only low tones in this channel
    heard = [pitch for channel, pitch in enumerate(tones(result)) if channel != bass]
    assert heard == [300 * (channel + 1) for channel in range(len(heard) + (bass is not None)) if channel != bass]


@every_way
@pytest.mark.parametrize(("picture", "sound"), [(0.0, 0.4), (0.4, 0.0), (1.0, 1.2)])
def test_picture_and_sound_stay_together_when_one_begins_later(way, picture, sound, tmp_path):
    data = Film("mpegts", starts=picture, options={"bf": "0"}, sounds=(Sound("mp2", starts=sound),)).data()
    (tmp_path / "source.ts").write_bytes(data)
    before = see(tmp_path / "source.ts").starts
    for container in ("mp4", "mkv"):
        (tmp_path / container).mkdir()
        result, info = encoded(way, data, tmp_path / container, container=container)
        after = see(result).starts
        assert float((after[1] - after[0]) - (before[1] - before[0])) == pytest.approx(0, abs=0.03)
        assert 0 <= min(after) < 0.05
        assert ("start time" in facts_in(info, "converted")) is (min(before) != 0)


def test_a_part_of_a_film_keeps_its_part_of_the_chapters_and_subtitles(tmp_path):
    data = Film(
        sounds=(Sound(),),
        subtitles=(Subtitles(((100, 200, "in"), (400, 400, "cut"), (700, 100, "out"))),),
        chapters=((0, 300, "One"), (300, 700, "Two"), (700, 1000, "Three")),
    ).data()
    seen = see(made("single", data, tmp_path, seconds=0.6))
    assert seen.chapters == [(0, 300, "One"), (300, 600, "Two")]
    assert [line for _, _, line in seen.texts[0]] == ["in", "cut"] and seen.texts[0][1][1] <= 200


@every_container
@pytest.mark.parametrize("codec", ["subrip", "ass", "webvtt", "mov_text"])
def test_every_format_of_text_arrives(codec, container, tmp_path):
    source = "mp4" if codec == "mov_text" else "matroska"
    data = Film(source, subtitles=(Subtitles(((200, 300, "Hello"), (600, 200, "Grüße")), codec),)).data()
    seen = see(made("single", data, tmp_path, container=container))
    assert [(start, line) for start, _, line in seen.texts[0]] == [(200, "Hello"), (600, "Grüße")]


@every_way
@pytest.mark.parametrize(("codec", "kept"), [("h264", True), ("h265", True), ("av1", False)])
def test_closed_captions_are_kept_where_the_encoder_can(way, codec, kept, tmp_path):
    captions = bytes((0xB5, 0x00, 0x31)) + b"GA94" + bytes((3, 0x41, 0xFF, 0xFC, 0x94, 0x2C, 0xFF))
    message = bytes((0, 0, 0, 1, 6, 4, len(captions))) + captions + b"\x80"
    plain = Film("h264", frames=5, options={"bf": "0", "x264-params": "aud=0:sliced-threads=0"}).data()
    pieces = plain.replace(b"\0\0\0\1\x65", b"\0\0\1\x65").replace(b"\0\0\0\1\x41", b"\0\0\1\x41")
    for kind in (b"\x65", b"\x41"):
        pieces = pieces.replace(b"\0\0\1" + kind, message + b"\0\0\1" + kind)
    # A transport stream, whose pictures have times.
    with av.open(io.BytesIO(pieces)) as source, av.open(str(tmp_path / "with.ts"), "w", format="mpegts") as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for number, packet in enumerate(packet for packet in source.demux() if packet.size):
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), number, number
            output.mux(packet)
    result, info = encoded(way, (tmp_path / "with.ts").read_bytes(), tmp_path, codec)
    with av.open(str(result)) as file:
        side = [found.type.name for found in next(file.decode(video=0)).side_data]
    assert ("A53_CC" in side) is kept
    assert "closed captions" in facts_in(info, "kept" if kept else "dropped")


@every_way
@every_container
def test_what_an_edit_list_hides_is_neither_seen_nor_heard(way, container, tmp_path):
    data = begun_later(Film("mp4", frames=50, sounds=(Sound(seconds=2.0),)).data(), Fraction(2, 5))
    assert read(data).numbers == list(range(10, 50))
    result, _ = encoded(way, data, tmp_path, container=container)
    seen = see(result)
    assert read(result).numbers == list(range(10, 50))
    assert abs(seen.starts[0] - seen.starts[1]) < Fraction(1, 10), "an mkv has no edit list to hide sound"


def test_a_language_of_two_letters_is_translated_for_an_mp4(tmp_path):
    data = Film(frames=5, sounds=(Sound(language="en-US"), Sound(language="x-klingon"))).data()
    result, info = encoded("single", data, tmp_path)
    assert [language for kind, _, language, *_ in see(result).tracks if kind == "audio"] == ["eng", "und"]
    assert "language" in facts_in(info, "converted") and "language" in facts_in(info, "dropped")


@every_way
@pytest.mark.parametrize(("codec", "layout"), [("pcm_s24be", "7.1"), ("pcm_s16be", "5.1(side)"), ("pcm_mulaw", "mono")])
def test_uncompressed_sound_stays_uncompressed_in_an_mkv(way, codec, layout, tmp_path):
    data = Film("mov", frames=25, sounds=(Sound(codec, layout),)).data()
    (tmp_path / "source.mov").write_bytes(data)
    result, info = encoded(way, data, tmp_path, container="mkv")
    assert see(result).tracks[1][1] in ("pcm_s24le", "pcm_s16le")
    assert samples(result) == samples(tmp_path / "source.mov")
    assert facts_in(info, "converted") == {"audio"} and "channel layout" in facts_in(info, "kept")


@every_container
def test_the_dispositions_that_are_kept_are_those_of_the_list(container, tmp_path):
    for flag in (flag for flag in Disposition if flag not in UNUSUAL):
        data = Film(frames=2, sounds=(Sound(seconds=0.1), Sound(seconds=0.1, flags=flag))).data()
        (tmp_path / "source.mkv").write_bytes(data)
        if not see(tmp_path / "source.mkv").tracks[2][4] & flag:
            continue  # an mkv doesn't have it
        result, info = encoded("single", data, tmp_path, container=container)
        kept = bool(see(result).tracks[2][4] & flag)
        assert kept is (flag.name in DISPOSITIONS[container]), flag
        assert kept is any(entry == f"disposition: track 3, {flag.name}" for entry in info["kept"]), flag
