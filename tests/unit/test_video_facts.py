"""How the pictures of a video must be shown: single and chunked encoding carry the same facts."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mesh.kinds.video_picture import TURNS, Picture, turn_of
from mesh.splitting.media_facts import read_facts
from node.workloads.video.frame_filter import fields_after
from tests.encodings import WAYS, encoded, every_container, every_way, facts_in, made
from tests.films import Film
from tests.videos import psnr, read, video

ONE = 1 << 16


def shown(plane: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """A picture as its display matrix says, point by point."""
    a, b, c, d = (round(number / ONE) for number in (matrix[0], matrix[1], matrix[3], matrix[4]))
    rows, columns = np.indices(plane.shape)
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    found = np.empty((y.max() + 1, x.max() + 1), plane.dtype)
    found[y, x] = plane
    return found


@every_way
@pytest.mark.parametrize("signs", TURNS)
def test_a_turned_or_mirrored_picture_comes_out_as_its_matrix_shows_it(way, signs, tmp_path):
    a, b, c, d = (sign * ONE for sign in signs)
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data = video(3, matrix=matrix, sound="", size=(160, 96))
    was, result = read(data), read(made(way, data, tmp_path, crf=12))
    expected = [shown(plane, matrix) for plane in was.luma]
    assert [plane.shape for plane in result.luma] == [plane.shape for plane in expected]
    assert all(psnr(plane, other) > 35 for plane, other in zip(result.luma, expected, strict=True))
    with av.open(str(tmp_path / "joined.mp4" if way == "chunked" else tmp_path / "encoded.mp4")) as file:
        assert not any(side.type.name == "DISPLAYMATRIX" for side in next(file.decode(video=0)).side_data)


@every_way
@every_container
def test_any_other_angle_stays_in_the_container(way, container, tmp_path):
    matrix = (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    data = video(3, matrix=matrix, sound="", size=(160, 96))
    result, info = encoded(way, data, tmp_path, container=container)
    with av.open(str(result)) as file:
        side = {found.type.name: bytes(found) for found in next(file.decode(video=0)).side_data}
    assert struct.unpack("=9i", side["DISPLAYMATRIX"]) == pytest.approx(matrix, abs=2)
    assert read(result).size == (160, 96) and "display matrix" in facts_in(info, "kept")


def test_only_right_angles_are_turns():
    assert turn_of((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)) is None
    assert turn_of((ONE, 700, 0, -700, ONE, 0, 0, 0, 1 << 30)) == "none"
    assert turn_of((0, 2 * ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)) == "rotate_right", "a scale is no matter of the angle"
    assert turn_of((0,) * 9) is None


@every_way
def test_a_clock_that_wraps_to_zero_loses_no_frame(way, tmp_path):
    """The 33-bit clock of a transport stream wraps every 26.5 hours; times before that are below zero."""
    muxer = {"output_ts_offset": "95442.9", "max_delay": "0"}
    data = video(50, container="mpegts", sound="mp2", options={"bf": "0"}, muxer=muxer)
    (tmp_path / "wraps.ts").write_bytes(data)
    assert -2 < read_facts(tmp_path / "wraps.ts").start < 0
    was, result = read(data), read(made(way, data, tmp_path))
    assert result.numbers == list(range(50))
    spans = [after - before for before, after in zip(result.times, result.times[1:], strict=False)]
    assert result.times[0] >= 0 and len(spans) == 49
    assert max(abs(span - (was.times[1] - was.times[0])) for span in spans) < 0.002
    assert abs((result.sound_span[0] - result.times[0]) - (was.sound_span[0] - was.times[0])) < 0.05


@every_way
@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_hdr10_keeps_its_mastering_display_and_light_level(way, codec, tmp_path):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    options = {"x265-params": f"log-level=none:master-display={display}:max-cll=1000,400"}
    film = Film("mp4", "libx265", 15, options=options, pixel_format="yuv420p10le", colour=(9, 16, 9, 1))
    data = film.data()
    result, info = encoded(way, data, tmp_path, codec)
    with av.open(str(result)) as file:
        frame = next(file.decode(video=0))
        side = {found.type.name: bytes(found) for found in frame.side_data}
        assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (9, 16, 9, 1)
    numbers = struct.unpack("=20i", side["MASTERING_DISPLAY_METADATA"][:80])
    values = [numbers[at] / numbers[at + 1] for at in range(0, 20, 2)]
    assert values[:8] == pytest.approx([0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329], abs=2e-5)
    assert values[8:] == pytest.approx([0.005, 1000], abs=1e-4)
    assert struct.unpack("=2I", side["CONTENT_LIGHT_LEVEL"]) == (1000, 400)
    assert {"mastering display", "light level", "colours"} <= facts_in(info, "kept")
    assert ("bit depth" in facts_in(info, "converted")) is (codec == "h264")


@every_way
def test_a_stereoscopic_layout_is_kept_in_h264(way, tmp_path):
    data = Film(video_tags={"stereo_mode": "top_bottom"}, frames=5).data()
    for codec in ("h264", "h265"):
        (tmp_path / codec).mkdir()
        result, info = encoded(way, data, tmp_path / codec, codec)
        with av.open(str(result)) as file:
            side = {found.type.name: bytes(found) for found in next(file.decode(video=0)).side_data}
        assert (side.get("STEREO3D", b"")[:4] == struct.pack("=i", 2)) is (codec == "h264")
        assert "stereoscopic layout" in facts_in(info, "kept" if codec == "h264" else "dropped")


def first_fields(path: Path) -> list[tuple[bool, bool]]:
    """(interlaced, top field first) of each frame: FFmpeg's filter `select` reads the second flag."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream)
        chain = (source, graph.add("select", r"eq(interlace_type\,TOPFIRST)"), graph.add("buffersink"))
        graph.link_nodes(*chain).configure()
        found = []
        for frame in file.decode(stream):
            graph.vpush(frame)
            try:
                graph.vpull()
                found.append((frame.interlaced_frame, True))
            except av.error.BlockingIOError:
                found.append((frame.interlaced_frame, False))
        return found


@every_way
@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("source", ["libx264", "mpeg2video"])
def test_interlaced_pictures_stay_interlaced_in_h264(way, order, source, tmp_path):
    options = {"x264-params": f"{order}=1"} if source == "libx264" else {"b": "2000000"}
    film = Film("mp4" if source == "libx264" else "mpegts", source, 25, options=options, fields=order)
    data = film.data()
    (tmp_path / "source").write_bytes(data)
    assert first_fields(tmp_path / "source") == [(True, order == "tff")] * 25
    result, info = encoded(way, data, tmp_path, crf=12)
    assert first_fields(result) == [(True, order == "tff")] * 25
    assert "field order" in facts_in(info, "kept")
    pairs = zip(read(result).luma, read(data).luma, strict=True)
    assert all(psnr(plane, other) > 32 for plane, other in pairs)


@every_container
@pytest.mark.parametrize("codec", ["h265", "av1"])
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_the_container_tells_the_field_order_of_other_codecs(codec, container, order, tmp_path):
    film = Film("mp4", "libx264", 15, options={"x264-params": f"{order}=1"}, fields=order)
    for way in WAYS if codec == "h265" else ("single",):
        (tmp_path / way).mkdir()
        result, info = encoded(way, film.data(), tmp_path / way, codec, container)
        with av.open(str(result)) as file:
            assert file.streams.video[0].codec_context.field_order == {"tff": 2, "bff": 3}[order]
        assert "field order" in facts_in(info, "kept")


def test_the_flags_of_the_frames_go_before_an_order_of_two_meanings(tmp_path):
    """FFmpeg's own tools write "top coded first, bottom displayed first" (4) for pictures that show the top first."""
    film = Film("matroska", "libx264", 5, options={"x264-params": "tff=1"}, fields="tff", order=4)
    (tmp_path / "source.mkv").write_bytes(film.data())
    assert read_facts(tmp_path / "source.mkv").picture.fields == "top_first"


def test_a_flip_exchanges_the_fields_and_a_turn_sideways_ends_them():
    top = Picture(fields="top_first")
    assert fields_after(top) == "top_first"
    assert fields_after(top.model_copy(update={"turn": "flip"})) == "bottom_first"
    assert fields_after(top.model_copy(update={"turn": "rotate_180"})) == "bottom_first"
    assert fields_after(top.model_copy(update={"turn": "mirror"})) == "top_first"
    assert fields_after(top.model_copy(update={"turn": "rotate_left"})) == "progressive"
    assert fields_after(Picture(turn="flip")) == "progressive"


def test_interlaced_h264_of_a_height_that_it_cannot_have_says_so(tmp_path):
    film = Film("mpegts", "mpeg2video", 5, size=(160, 90), options={"b": "2000000"}, fields="tff")
    result, info = encoded("single", film.data(), tmp_path)
    assert first_fields(result) == [(False, False)] * 5
    assert [entry for entry in info["dropped"] if "multiple of 4" in entry]


@every_way
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_the_containers_pixel_aspect_is_kept(way, codec, tmp_path):
    """AV1's own data has no aspect, only the header of the mp4."""
    data = Film("mp4", "libsvtav1", 12, aspect=Fraction(4, 3), size=(128, 96), options={"preset": "12"}).data()
    for container in ("mp4", "mkv"):
        (tmp_path / container).mkdir()
        result, info = encoded(way, data, tmp_path / container, codec, container)
        with av.open(str(result)) as file:
            kept = file.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert kept is ("pixel aspect" in facts_in(info, "kept")) is ((codec, container) != ("av1", "mkv"))


@every_way
def test_rgb_keeps_its_colours(way, tmp_path):
    path = tmp_path / "source.mkv"
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=25, width=64, height=64, pix_fmt="bgr0")
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (200, 60, 40), np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame.reformat(format="bgr0")))
        output.mux(stream.encode(None))
    result, info = encoded(way, path.read_bytes(), tmp_path, crf=1)
    with av.open(str(result)) as file:
        frame = next(file.decode(video=0))
        luma = int(np.frombuffer(frame.planes[0], np.uint8)[10])
    assert (frame.colorspace, frame.color_range) == (1, 1)
    assert luma == pytest.approx(16 + 219 * (0.2126 * 200 + 0.7152 * 60 + 0.0722 * 40) / 255, abs=1.5)
    assert "chroma samples" in facts_in(info, "converted")
