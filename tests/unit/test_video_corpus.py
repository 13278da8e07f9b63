"""Each codec, container and oddity through one task and through parts, compared with an independent decoding."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mesh.splitting.media import MediaFault
from mesh.splitting.video_plan import CannotCut
from node.executor.context import InputFault
from tests.video_parts import joined, one_task
from tests.videos import psnr, video

SIZE = (128, 96)
FRAMES = 60
TS = 188
Q3 = {"qscale": "3", "flags": "+qscale", "global_quality": "354", "b": "3000000"}
OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0", "preset": "fast", "bf": "2"}
FIELDS = {"flags": "+ilme+ildct", "x264-params": "tff=1:keyint=12"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=12", "preset": "fast", "bf": "0"}
X265 = {"x265-params": "log-level=none:keyint=12:min-keyint=12:open-gop=1:bframes=4:scenecut=0"}
ALTREF = {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "good", "cpu-used": "5", "b": "500000"}


def _clip(codec: str, container: str, pixel_format: str = "yuv420p", gop: int = 12, **options: str) -> dict[str, Any]:
    return {"codec": codec, "container": container, "pixel_format": pixel_format, "gop": gop, "options": options}


#: Name -> (how to make the file, how many transport packets of its beginning are missing).
USUAL: dict[str, tuple[dict[str, Any], int]] = {
    "MPEG-2 in TS, cut": (_clip("mpeg2video", "mpegts", **Q3, bf="2"), 60),
    "H.264 in TS, open groups, cut": (_clip("libx264", "mpegts", **OPEN), 20),
    "H.264 in TS, fields": (_clip("libx264", "mpegts", **FIELDS), 0),
    "H.264 in AVI, B-frames": (_clip("libx264", "avi", bf="3"), 0),
    "raw uyvy422 in MOV": (_clip("rawvideo", "mov", "uyvy422"), 0),
    "raw I420 in AVI": (_clip("rawvideo", "avi"), 0),
    "ProRes in MOV": (_clip("prores_ks", "mov", "yuv422p10le"), 0),
    "HEVC in MP4, open groups": (_clip("libx265", "mp4", **X265), 0),
    "10 bits uncompressed (v210) in MOV": (_clip("v210", "mov", "yuv422p10le"), 0),
    "MPEG-4 in MP4, B-frames": (_clip("mpeg4", "mp4", **Q3, bf="2"), 0),
    "VP8 in WebM, hidden pictures": (_clip("libvpx", "webm", **ALTREF), 0),
}
REST: dict[str, tuple[dict[str, Any], int]] = {
    **{f"MPEG-2 in TS, {cut} packets missing": (_clip("mpeg2video", "mpegts", **Q3, bf="2"), cut) for cut in (20, 111)},
    **{f"H.264 in TS, {cut} packets missing": (_clip("libx264", "mpegts", **OPEN), cut) for cut in (7, 55, 75)},
    **{f"HEVC in TS, {cut} packets missing": (_clip("libx265", "mpegts", **X265), cut) for cut in (0, 15, 40)},
    **{
        f"raw {pixels} in {container}": (_clip("rawvideo", container, pixels), 0)
        for container, formats in {
            "mov": ("yuyv422", "rgb24", "bgr24", "argb", "gray", "rgb555le"),
            "avi": ("yuyv422", "uyvy422", "bgr24", "gray", "nv12", "yuv411p"),
            "matroska": ("yuyv422", "uyvy422", "nv12"),
        }.items()
        for pixels in formats
    },
    **{f"MPEG-4 in {name}": (_clip("mpeg4", name, **Q3, bf="2"), 0) for name in ("avi", "matroska", "mov")},
    **{
        f"{codec} in {container}": (_clip(codec, container, pixels), 0)
        for codec, container, pixels in (
            ("r210", "mov", "gbrp10le"), ("qtrle", "mov", "rgb24"), ("png", "mov", "rgb24"), ("svq1", "mov", "yuv410p"),
            ("jpeg2000", "mov", "yuv420p"), ("cfhd", "mov", "yuv422p10le"), ("magicyuv", "avi", "yuv420p"),
            ("cinepak", "mov", "rgb24"), ("mpeg2video", "mxf", "yuv420p"), ("v410", "mov", "yuv444p10le"),
        )
    },
    "DV in AVI": ({**_clip("dvvideo", "avi"), "size": (720, 576)}, 0),
    "DV in MOV": ({**_clip("dvvideo", "mov"), "size": (720, 576)}, 0),
    "ProRes in Matroska": (_clip("prores_ks", "matroska", "yuv422p10le"), 0),
    **{f"FFV1 in {container}": (_clip("ffv1", container), 0) for container in ("avi", "matroska")},
    **{f"M-JPEG in {name}": (_clip("mjpeg", name, "yuvj420p", bf="0"), 0) for name in ("avi", "matroska", "mov")},
    "HuffYUV in AVI": (_clip("huffyuv", "avi", "yuv422p"), 0),
    "FFVHuff in AVI": (_clip("ffvhuff", "avi"), 0),
    "Ut Video in AVI": (_clip("utvideo", "avi"), 0),
    "Sorenson in FLV": (_clip("flv", "flv", bf="0"), 0),
    "H.264 in FLV": (_clip("libx264", "flv"), 0),
    "WMV2 in ASF": (_clip("wmv2", "asf", bf="0"), 0),
    "WMV1 in ASF": (_clip("wmv1", "asf", bf="0"), 0),
    "MS-MPEG-4 v2 in AVI": (_clip("msmpeg4v2", "avi", bf="0"), 0),
    "MS-MPEG-4 v3 in AVI": (_clip("msmpeg4", "avi", bf="0"), 0),
    "MPEG-1 in PS": (_clip("mpeg1video", "mpeg", **Q3, bf="2"), 0),
    "MPEG-2 in PS, fields": (_clip("mpeg2video", "mpeg", **Q3, bf="2"), 0),
    "VP9 in WebM, hidden pictures": (_clip("libvpx-vp9", "webm", **ALTREF), 0),
    "VP8 in IVF": (_clip("libvpx", "ivf", **ALTREF), 0),
    "AV1 in MP4": (_clip("libsvtav1", "mp4", preset="12"), 0),
    "AV1 in Matroska": (_clip("libsvtav1", "matroska", preset="12"), 0),
    "raw H.264": (_clip("libx264", "h264"), 0),
    "raw HEVC": (_clip("libx265", "hevc", **X265), 0),
    "HEVC in Matroska, open groups": (_clip("libx265", "matroska", **X265), 0),
    "H.264 in fragments": ({**_clip("libx264", "mp4"), "muxer": {"movflags": "frag_keyframe+empty_moov"}}, 0),
}  # fmt: skip


def _source(making: dict[str, Any], missing: int) -> bytes:
    return video(FRAMES, **{"size": SIZE, "sound": "", **making})[missing * TS :]


def _decoded(source: bytes | Path) -> list[tuple[Fraction | None, np.ndarray]]:
    """(time, small RGB picture) of each frame, by plain PyAV."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    with av.open(io.BytesIO(data)) as file:
        return [
            (
                None if frame.pts is None else frame.pts * frame.time_base,
                frame.reformat(64, 48, "rgb24", interpolation="AREA").to_ndarray(),
            )
            for frame in file.decode(file.streams.video[0])
        ]


def _least_psnr(made: list[Any], source: list[Any]) -> float:
    return min(psnr(picture, other) for (_, picture), (_, other) in zip(made, source, strict=True))


def _both_ways(data: bytes, folder: Path) -> None:
    was = _decoded(data)
    alone = _decoded(one_task(data, folder / "alone", crf=12).data)
    parts = _decoded(joined(data, folder / "parts", crf=12))
    assert len(was) == len(alone) == len(parts) >= 12
    assert len(list((folder / "parts").glob("task-*"))) > 1, "it must be cut"
    assert _least_psnr(alone, was) > 24 and _least_psnr(parts, was) > 24 and _least_psnr(parts, alone) > 30
    for (time, _), (other, _) in zip(parts, alone, strict=True):
        assert time is not None and other is not None and abs(time - other) <= Fraction(1, 500)
    times = [time for time, _ in was]
    if None not in times and times == sorted(set(times)):
        off = parts[0][0] - times[0]
        assert all(abs(time - other - off) <= Fraction(1, 100) for (time, _), other in zip(parts, times, strict=True))


@pytest.mark.parametrize("name", USUAL)
def test_parts_and_one_task_give_the_frames_of_the_source(name: str, tmp_path: Path) -> None:
    _both_ways(_source(*USUAL[name]), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", REST)
def test_parts_and_one_task_give_the_frames_of_the_source_in_full(name: str, tmp_path: Path) -> None:
    _both_ways(_source(*REST[name]), tmp_path)


def _two_sizes() -> bytes:
    """A transport stream whose pictures change their size."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        encoders = [stream.codec_context]
        other = av.CodecContext.create("libx264", "w")
        other.width, other.height, other.pix_fmt, other.framerate = 160, 128, "yuv420p", Fraction(25)
        other.time_base = Fraction(1, 25)
        encoders.append(other)
        for number, encoder in enumerate(encoders):
            encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
            for at in range(30):
                frame = av.VideoFrame(encoder.width, encoder.height, "yuv420p")
                frame.pts, frame.time_base = number * 30 + at, Fraction(1, 25)
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    made.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("making", "reason"),
    [
        (_clip("libx264", "mp4", **REFRESH), "has key frames from which the decoder does not give its pictures"),
        (_clip("libx264", "mpegts", **REFRESH), "has key frames from which the decoder does not give its pictures"),
        (_clip("libx264", "mp4", gop=250), "has no key frame to cut at"),
        ({}, "changes its picture size or pixel format at"),
    ],
    ids=["gradual refresh", "gradual refresh in TS", "one group", "two sizes"],
)
def test_what_can_not_be_cut_is_named_before_a_part_is_made(
    making: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    data = _source(making, 0) if making else _two_sizes()
    with pytest.raises(CannotCut, match=reason):
        joined(data, tmp_path / "parts")
    assert not list((tmp_path / "parts").glob("task-1"))
    was = _decoded(data)
    alone = _decoded(one_task(data, tmp_path / "alone", crf=12).data)
    assert len(alone) == len(was) and _least_psnr(alone, was) > 24


def test_an_avi_with_empty_chunks_is_whole_and_one_that_is_cut_off_is_not(tmp_path: Path) -> None:
    """Each empty chunk stands for a repeated picture, and the header counts it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as made:
        stream = made.add_stream("mpeg4", rate=25)
        stream.width, stream.height = SIZE
        for at in [*range(20), *range(25, 60)]:  # the muxer fills the gap with empty chunks
            frame = av.VideoFrame(*SIZE, "yuv420p")
            frame.pts, frame.time_base = at, Fraction(1, 25)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    data = buffer.getvalue()
    with av.open(io.BytesIO(data)) as file:
        announced = file.streams.video[0].frames
        assert announced > sum(1 for _ in file.decode(video=0)), "the header must count empty chunks"
    assert len(_decoded(one_task(data, tmp_path / "alone").data)) == len(_decoded(data))
    joined(data, tmp_path / "parts")
    for share in (0.5, 0.9):
        cut = data[: int(len(data) * share)]
        with pytest.raises(InputFault, match="truncated|damaged"):
            one_task(cut, tmp_path / "alone")
        with pytest.raises(MediaFault, match="truncated|damaged"):
            joined(cut, tmp_path / "parts")


def test_an_edit_list_that_ends_early_is_no_truncation(tmp_path: Path) -> None:
    """As a telephone trims a film: the samples stay in the file, the edit list leaves out the end."""
    data = bytearray(video(60, size=SIZE, gop=10, sound="", options={"bf": "0"}))
    at = data.index(b"elst") + 12
    duration = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (duration // 2).to_bytes(4, "big")
    was = _decoded(bytes(data))
    assert len(was) in range(29, 32)
    assert len(_decoded(one_task(bytes(data), tmp_path / "alone").data)) == len(was)
    assert len(_decoded(joined(bytes(data), tmp_path / "parts", part_s=0.4))) == len(was)


@pytest.mark.parametrize(
    ("codec", "container"),
    [("flv", "flv"), ("wmv2", "asf"), ("libx264", "matroska"), ("mjpeg", "avi"), ("mpeg4", "mp4")],
)
def test_a_slide_show_is_no_truncation(codec: str, container: str, tmp_path: Path) -> None:
    """The header counts the time of the last picture, which its packet need not have."""
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    making = _clip(codec, container, pixel_format, gop=1, bf="0")
    data = video(8, size=SIZE, sound="", rate=Fraction(1, 3), **making)
    assert len(_decoded(one_task(data, tmp_path / "alone").data)) == 8
    assert len(_decoded(joined(data, tmp_path / "parts", part_s=6))) == 8


def test_a_recording_that_begins_late_is_no_truncation(tmp_path: Path) -> None:
    """Matroska counts its duration from 0, not from the first picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as made:
        stream = made.add_stream("mpeg4", rate=25)
        stream.width, stream.height = SIZE
        for at in range(30, 60):
            frame = av.VideoFrame(*SIZE, "yuv420p")
            frame.pts, frame.time_base = at, Fraction(1, 25)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    assert len(_decoded(one_task(buffer.getvalue(), tmp_path / "alone").data)) == 30
    assert len(_decoded(joined(buffer.getvalue(), tmp_path / "parts"))) == 30


def test_an_empty_or_foreign_file_is_one_sentence(tmp_path: Path) -> None:
    for data in (b"", b"x", bytes(100), b"\x00\x00\x00\x18ftypmp42", b"RIFF", b"\x1aE\xdf\xa3"):
        with pytest.raises(MediaFault, match="is not a readable video"):
            joined(data, tmp_path / "parts")
