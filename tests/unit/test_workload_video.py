"""The kinds video_encode_…: the output is decoded and compared with the input, frame by frame."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from fractions import Fraction

import av
import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from mesh.kinds.video import MAX_PIXELS
from node.executor.context import Context, InputFault, load
from node.workloads.video import codecs
from node.workloads.video.test_pattern import Scene, read_number
from tests.videos import SIZE, psnr, read, video

CODECS = {"h264": ("h264", 32.0), "h265": ("hevc", 32.0), "av1": ("av1", 30.0)}
#: SHA-256 of three test pictures: a change makes measured speeds of the kinds incomparable.
DIGEST = "a83fd13e945d0bdba2346e4143a91dde9ecfc89a647a76c876eb07fb862d5b57"
every_codec = pytest.mark.parametrize("codec", CODECS)


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Two seconds of video, with B-frames and sound."""
    return video(50)


@pytest.fixture
def encode(tmp_path):
    def call(codec="h264", cores=2, progress=None, **payload):
        kind = f"video_encode_{codec}"
        context = Context(cores=cores, folder=tmp_path)
        if progress is not None:
            context.progress = progress
        payload = {"preset": "ultrafast", "encoder": "software", **payload}
        return load(kind)(validate(kind, payload), context)

    return call


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no real-time policies to look at")
@every_codec
def test_no_encoder_runs_with_real_time_priority(encode, clip, codec):
    """As root, SVT-AV1 would raise its threads, and the calling one, above all other processes."""
    seen: set[int] = set()

    def look(share: float, note: str = "") -> None:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                seen.add(os.sched_getscheduler(int(thread)))

    encode(codec, video=clip, progress=look)
    look(1.0)
    codecs.unusable_reason.__wrapped__(codecs.SOFTWARE[codec])
    look(1.0)
    assert seen == {os.SCHED_OTHER}


@every_codec
def test_every_frame_of_a_file_is_encoded_in_order(encode, clip, codec):
    shares = []
    output = encode(codec, video=clip, crf=20, progress=lambda share, note="": shares.append(share))
    name, bound = CODECS[codec]
    was, made = read(clip), read(output.data)
    assert (made.codec, made.pixel_format, made.size) == (name, "yuv420p", SIZE)
    assert made.numbers == list(range(50)) and made.times == was.times and made.colour == 1
    assert all(psnr(plane, other) > bound for plane, other in zip(made.luma, was.luma, strict=True))
    assert made.sound == was.sound and abs(made.sound_span[0] - was.sound_span[0]) <= Fraction(1, 1000)
    info = output.info
    assert (info["frames"], info["width"], info["height"], info["duration_s"]) == (50, *SIZE, 2.0)
    assert info["audio"] == [{"codec": "aac", "how": "copied"}] and info["threads"] == 2
    assert info["fps"] > 0 and info["realtime"] == pytest.approx(2.0 / info["seconds"], rel=0.01)
    assert info["bytes"] == output.data.stat().st_size and 0 < info["bit_rate"] <= info["bytes"] * 4
    assert shares == sorted(shares) and shares[-1] == 1.0
    data = output.data.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"


@every_codec
def test_a_resolution_alone_encodes_a_test_picture(encode, codec):
    output = encode(codec, resolution="320x180", seconds=1, fps=24)
    made = read(output.data)
    scene = Scene(320, 180)
    pictures = [scene.picture(number)[0] for number in range(24)]
    assert made.size == (320, 180) and made.numbers == list(range(24))
    assert all(psnr(plane, other) > 25 for plane, other in zip(made.luma, pictures, strict=True))
    assert output.info["frame_rate"] == 24 and output.info["source"] == "test picture" and made.sound == []


def test_names_of_resolutions_and_the_default_length_of_the_test_picture():
    def default(resolution):
        payload = validate("video_encode_h264", {"resolution": resolution})
        return payload.test_size, payload.test_seconds

    assert default("720p") == ((1280, 720), 10)
    assert default("1080P") == ((1920, 1080), 4)
    assert default("4K") == ((3840, 2160), 2)
    assert validate("video_encode_h264", {}).test_size == (1280, 720)


def test_the_test_picture_is_the_same_everywhere():
    import hashlib

    digest = hashlib.sha256()
    scene = Scene(320, 180)
    for number in (0, 1, 500):
        for plane in scene.picture(number):
            digest.update(plane.tobytes())
        assert read_number(scene.picture(number)[0]) == number
    assert digest.hexdigest() == DIGEST


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_quality_matches_an_independent_computation(encode, clip, codec):
    output = encode(codec, video=clip, crf=30, quality=True, resolution="160x96", seconds=0.4)
    made = _planes(output.data.read_bytes())
    frames = list(av.open(io.BytesIO(clip)).decode(video=0))[:10]
    wanted = [_split(frame.reformat(160, 96, interpolation="BICUBIC")) for frame in frames]
    pairs = list(zip(made, wanted, strict=True))
    errors = [[np.mean((a - b) ** 2) for a, b in zip(encoded, reference, strict=True)] for encoded, reference in pairs]
    weighed = [(4 * y + u + v) / 6 for y, u, v in errors]
    decibels = 10 * np.log10(255**2 / np.mean(weighed))
    assert output.info["psnr_db"] == pytest.approx(decibels, abs=0.02)
    assert output.info["psnr_min_db"] == pytest.approx(10 * np.log10(255**2 / np.max(weighed)), abs=0.02)
    of_luma = 10 * np.log10(255**2 / np.mean([y for y, _, _ in errors]))
    assert output.info["psnr_y_db"] == pytest.approx(of_luma, abs=0.02)
    likeness = np.mean([(4 * _ssim(a[0], b[0]) + _ssim(a[1], b[1]) + _ssim(a[2], b[2])) / 6 for a, b in pairs])
    assert output.info["ssim"] == pytest.approx(likeness, abs=0.001)
    assert 20 < output.info["psnr_db"] < 50 and 0.5 < output.info["ssim"] < 1


def _split(frame):
    flat = [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]
    return [plane.astype(np.float64) for plane in flat]


def _planes(data):
    return [_split(frame) for frame in av.open(io.BytesIO(data)).decode(video=0)]


def _ssim(picture, other):
    """The SSIM by its definition, over squares of 8 pixels, every fourth pixel."""
    values = []
    for top in range(0, picture.shape[0] - 7, 4):
        for left in range(0, picture.shape[1] - 7, 4):
            a, b = picture[top : top + 8, left : left + 8], other[top : top + 8, left : left + 8]
            ma, mb, va, vb = a.mean(), b.mean(), a.var(), b.var()
            both = ((a - ma) * (b - mb)).mean()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(values)


def test_better_quality_is_asked_for_by_crf_preset_and_bit_rate(encode, clip):
    sizes = {crf: encode(video=clip, crf=crf).info["bytes"] for crf in (18, 40)}
    assert sizes[18] > 2 * sizes[40]
    assert encode(video=clip, bit_rate=200_000).info["bit_rate"] < 400_000
    assert read(encode(video=clip, gop=5).data).keys == 10


def test_scaling_fits_inside_and_follows_the_rotation(encode, clip):
    assert encode(video=clip, resolution="160x160").info["height"] == 96
    turned = video(5, rotation=90)
    assert read(turned).rotation == 90
    output = encode(video=turned, resolution="160x96")
    made = read(output.data)
    assert made.size == (96, 160) and made.rotation == 0
    upright = [np.rot90(luma) for luma in read(turned).luma]
    small = av.VideoFrame.from_ndarray(np.ascontiguousarray(upright[2]), "gray").reformat(96, 160, "gray")
    assert psnr(made.luma[2], small.to_ndarray()) > 24


def test_frame_rate_and_length_of_a_file_can_be_changed(encode, clip):
    half = encode(video=clip, fps=12.5)
    numbers = read(half.data).numbers
    assert half.info["frames"] == len(numbers) in (25, 26)
    assert {after - before for before, after in itertools.pairwise(numbers)} <= {1, 2, 3} and numbers[-1] >= 48
    short = encode(video=clip, seconds=0.8)
    made = read(short.data)
    assert made.numbers == list(range(20)) and Fraction(7, 10) < made.sound_span[1] < Fraction(9, 10)


@pytest.mark.parametrize(
    ("sound", "source", "container", "how"),
    [
        ("aac", "mp4", "mkv", ("aac", "copied")),
        ("aac", "mpegts", "mp4", ("aac", "copied")),
        ("libopus", "matroska", "mp4", ("opus", "copied")),
        ("pcm_s16le", "matroska", "mp4", ("aac", "encoded to AAC: the container does not support pcm_s16le")),
        ("pcm_s16le", "matroska", "mkv", ("pcm_s16le", "copied")),
        ("mp2", "mpegts", "mp4", ("aac", "encoded to AAC: the container does not support mp2")),
    ],
)
def test_sound_is_copied_where_the_container_can_hold_it(encode, sound, source, container, how):
    clip = video(25, container=source, sound=sound)
    output = encode(video=clip, container=container)
    assert output.content_type == {"mp4": "video/mp4", "mkv": "video/x-matroska"}[container]
    (track,) = output.info["audio"]
    made = read(output.data)
    assert (track["codec"], track["how"]) == how and made.sound_codec == how[0]
    assert made.numbers == list(range(25)) and abs(made.times[0]) < Fraction(1, 10)
    start, end = made.sound_span
    assert abs(start - made.times[0]) < Fraction(1, 10) and Fraction(9, 10) < end < Fraction(12, 10)
    assert read(encode(video=clip, audio="drop").data).sound == []


def test_ten_bits_are_kept_by_the_codecs_that_can(encode):
    clip = video(5, codec="libx265", pixel_format="yuv420p10le", options={"x265-params": "log-level=none"})
    assert read(encode("av1", video=clip).data).pixel_format == "yuv420p10le"
    assert read(encode("h265", video=clip).data).pixel_format == "yuv420p10le"
    assert read(encode("h264", video=clip).data).pixel_format == "yuv420p"
    assert encode("h265", video=clip, quality=True, crf=10).info["psnr_db"] > 35


@pytest.mark.parametrize(
    ("codec", "container"), [("mpeg4", "avi"), ("mpeg2video", "mpegts"), ("libvpx-vp9", "webm"), ("mjpeg", "mov")]
)
def test_other_codecs_and_containers_are_read(encode, codec, container):
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    clip = video(10, codec=codec, container=container, sound="", options={"bf": "0"}, pixel_format=pixel_format)
    assert read(encode(video=clip).data).numbers == list(range(10))


def test_an_absent_encoder_is_refused_or_passed_over(encode, clip):
    from node.workloads.video import codecs

    for codec in CODECS:
        chosen = encode(codec, video=clip, encoder="auto", seconds=0.2).info
        hardware = [name for name in codecs.hardware_names(codec) if not codecs.unusable_reason(name)]
        assert chosen["encoder"] == (hardware or [codecs.SOFTWARE[codec]])[0]
        assert chosen["hardware"] is bool(hardware)
    for name in codecs.hardware_names("h264"):
        if codecs.unusable_reason(name):
            with pytest.raises(InputFault, match="does not work") as caught:
                encode(video=clip, encoder=name)
            assert caught.value.field == "encoder"
    with pytest.raises(InputFault, match="must be one of auto, software, libx264, h264_nvenc"):
        encode(video=clip, encoder="libx265")


def test_the_same_input_gives_the_same_bytes_on_one_core(encode, clip):
    for codec in CODECS:
        first = encode(codec, cores=1, video=clip).data.read_bytes()
        assert encode(codec, cores=1, video=clip).data.read_bytes() == first


def test_wrong_payloads_are_refused_with_every_fault():
    with pytest.raises(BadInput) as caught:
        validate(
            "video_encode_h264",
            {"resolution": "5K", "crf": 60, "bit_rate": 5, "container": "avi", "preset": "fastest", "fps": 0,
             "part": {"time_base": "1/25", "rate": "25/1"}},
        )  # fmt: skip
    assert {fault.field for fault in caught.value.faults} == {
        f"payload.{name}" for name in ("resolution", "crf", "bit_rate", "container", "preset", "fps", "part")
    }
    with pytest.raises(BadInput, match="when crf is given"):
        validate("video_encode_av1", {"crf": 60, "bit_rate": 100_000})
    with pytest.raises(BadInput, match=f"at most {MAX_PIXELS // 1_000_000} million"):
        validate("video_encode_av1", {"resolution": "16000x16000"})
