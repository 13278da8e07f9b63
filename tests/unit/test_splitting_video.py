"""A video is split, encoded part by part and joined: the same frames at the same times, with the same sound."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.splitting import video_join, video_part
from mesh.splitting.media import MediaFault
from mesh.splitting.media_plan import Target
from mesh.splitting.video import checked
from mesh.splitting.video_compare import OtherPictures
from node.executor.context import InputFault
from tests.video_parts import encoded_part, parts_of
from tests.videos import psnr, read, video

OPEN = {"x264-params": "open-gop=1:keyint=26:min-keyint=26:scenecut=0:b-adapt=0:b-pyramid=normal", "preset": "fast"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
VP8 = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "4", "b": "300000"}
SOURCES: dict[str, dict[str, Any]] = {
    "closed groups, B-frames": {},
    "open groups": {"options": {**OPEN, "bf": "5"}, "gop": 26, "frames": 78},
    "open groups, mkv": {"options": {**OPEN, "bf": "2"}, "gop": 26, "frames": 78, "container": "matroska"},
    "begins late": {"container": "mpegts"},
    "MPEG-2, open groups": {"codec": "mpeg2video", "container": "mpegts", "sound": "mp2", "options": {"b": "2000000"}},
    "VP8 with hidden pictures": {"codec": "libvpx", "container": "webm", "sound": "libopus", "options": VP8},
    "VP9": {"codec": "libvpx-vp9", "container": "webm", "sound": "", "options": VP9},
    "29.97 a second": {"rate": Fraction(30000, 1001)},
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_joined_video_has_the_frames_of_the_source(name, tmp_path):
    data = video(**{"frames": 60, **SOURCES[name]})
    film, cuts, parts = parts_of(data, tmp_path)
    was = read(data)
    assert film.packets >= len(was.times) and sum(len(part.times) for part in parts) == len(was.times)
    assert len(parts) > 1 and film.parts >= len(parts)
    if "open" in name:
        overlaps = [cut.piece.stop > after.piece.start for cut, after in itertools.pairwise(cuts)]
        assert any(overlaps), "the source must have open groups"
    for container in ("mp4", "mkv"):
        target = tmp_path / f"joined.{container}"
        how = video_join.join(film, parts, target, Target("h264", container), lambda frames: None).audio
        made = read(target)
        assert made.numbers == was.numbers
        assert all(psnr(plane, other) > 30 for plane, other in zip(made.luma, was.luma, strict=True))
        # Frame times, also relative to the sound, are those of the source (Matroska counts milliseconds).
        off = made.times[0] - was.times[0]
        assert all(abs(a - b - off) <= Fraction(1, 1000) for a, b in zip(made.times, was.times, strict=True))
        decoded = [dts for dts, _ in made.packet_times]
        assert all(before < after for before, after in itertools.pairwise(decoded))
        assert all(dts <= pts for dts, pts in made.packet_times)
        assert 0 <= made.times[0] < Fraction(1, 20)
        if was.sound:
            assert abs(made.sound_span[0] - was.sound_span[0] - off) < Fraction(1, 20), how
            assert abs(made.sound_span[1] - was.sound_span[1] - off) < Fraction(1, 20), how
            if how[0]["how"] == "copied":
                # A transport stream puts a header of 7 bytes before each AAC packet.
                assert made.sound in (was.sound, [packet[7:] for packet in was.sound])


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_other_codecs_are_joined_too_and_give_the_same_bytes_each_time(codec, tmp_path):
    data = video(50, rotation=90)
    results = []
    for turn in ("one", "two"):
        folder = tmp_path / turn
        folder.mkdir()
        film, _, parts = parts_of(data, folder, codec, resolution="160x96")
        assert film.facts.picture.turn == "rotate_left" and film.facts.picture.colour[2] == 1
        video_join.join(film, parts, folder / "joined.mp4", Target(codec, "mp4"), lambda frames: None)
        results.append((folder / "joined.mp4").read_bytes())
    assert results[0] == results[1]
    made = read(results[0])
    assert made.size == (96, 160) and len(made.times) == 50 and made.rotation == 0 and made.colour == 1
    upright = np.rot90(read(data).luma[30])
    small = upright[: 320 // 2 * 2, : 192 // 2 * 2].reshape(160, 2, 96, 2).mean(axis=(1, 3))
    assert psnr(made.luma[30], small) > 22


def test_a_damaged_or_foreign_part_is_refused(tmp_path):
    data = video(50)
    film, cuts, parts = parts_of(data, tmp_path, decodes=True)
    shorter = replace(cuts[0].piece, shown=cuts[0].piece.shown[:-1])
    with pytest.raises(MediaFault, match="frames instead of|frames at wrong times"):
        video_join.check(parts[0].path, film, replace(cuts[0], piece=shorter))
    whole = bytearray(parts[1].path.read_bytes())
    middle = len(whole) * 2 // 3
    whole[middle : middle + 1500] = bytes(1500)
    (tmp_path / "damaged").write_bytes(whole)
    with pytest.raises(MediaFault):
        video_join.check(tmp_path / "damaged", film, cuts[1])
    (tmp_path / "text").write_bytes(b"no video at all")
    with pytest.raises(MediaFault, match="is not a readable video"):
        video_join.check(tmp_path / "text", film, cuts[1])
    other = video_join.Part(parts[1].path, parts[1].times, b"another head", 1)
    with pytest.raises(MediaFault, match="different versions of an encoder"):
        video_join.join(film, [parts[0], other], tmp_path / "joined.mp4", Target("h264", "mp4"), lambda frames: None)


def test_a_part_with_other_pictures_is_refused(tmp_path):
    film, cuts, parts = parts_of(video(50), tmp_path, decodes=True)
    other = {index: 255 - copy for index, copy in cuts[1].samples.items()}
    assert len(other) >= 8
    with pytest.raises(OtherPictures, match=r"has a frame 1 that is not the one of the source \(PSNR"):
        video_join.check(parts[1].path, film, replace(cuts[1], samples=other))
    wrong = dict(list(cuts[1].samples.items())[:-1]) | {max(other): other[max(other)]}
    with pytest.raises(OtherPictures, match=f"has a frame {max(other) + 1} that"):
        video_join.check(parts[1].path, film, replace(cuts[1], samples=wrong))


def test_a_part_says_that_it_is_damaged(tmp_path):
    film, cuts, _ = parts_of(video(50), tmp_path)
    whole = bytearray((tmp_path / "part-1").read_bytes())
    middle = len(whole) // 2
    hole = whole[:middle] + bytes(1500) + whole[middle + 1500 :]
    huge = b"queztl part 1\n" + b"\xff" * 40
    for data in (b"", b"text", whole[:20], whole[:middle], whole[:-1], hole, huge):
        (tmp_path / "part-1").write_bytes(data)
        with pytest.raises(InputFault, match="part of a video|is a part"):
            encoded_part(film, cuts[1], tmp_path / "task")


@pytest.mark.parametrize(
    "wrong",
    [
        {"decoder": "wrapped_avframe"}, {"decoder": "gif"}, {"decoder": "no such decoder"}, {"tag": "longer"},
        {"width": 60_000, "height": 60_000}, {"width": 0}, {"width": -1}, {"reorder": 17}, {"bits": 2**40},
        {"pixel_format": "nonsense"}, {"colour": (300, 1, 1, -1)},
    ],
    ids=str,
)  # fmt: skip
def test_a_part_with_impossible_parameters_is_refused(tmp_path, wrong):
    film, cuts, _ = parts_of(video(50), tmp_path)
    with (tmp_path / "part-1").open("rb") as file:
        header = video_part.read_header(file)
        packets = list(video_part.read_packets(file, header))
    coding = msgspec.structs.replace(header.coding, **wrong)
    video_part.write(tmp_path / "part-1", msgspec.structs.replace(header, coding=coding), packets)
    with pytest.raises(InputFault, match="part of a video|unsupported video codec|the limit is"):
        encoded_part(film, cuts[1], tmp_path / "task")


def test_fields_that_mean_the_whole_video_are_refused_by_name():
    with pytest.raises(BadInput) as caught:
        checked("h264", {"seconds": 3, "fps": 10, "quality": True})
    assert {fault.field for fault in caught.value.faults} == {"payload.seconds", "payload.fps", "payload.quality"}
    with pytest.raises(BadInput, match="no codec 'vp9'"):
        checked("vp9", {})
    with pytest.raises(BadInput, match="crf"):
        checked("h264", {"crf": 99})
    assert checked("av1", None).encoder == "software"
