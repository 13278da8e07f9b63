"""Files that are no video, are damaged or are hostile: each is one clear fault of the input."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import av
import pytest

from mesh.kinds.table import validate
from mesh.splitting.media import MediaFault, _Reader, opened
from node.executor.context import Context, InputFault, load
from tests.videos import sound_only, video

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clip() -> bytes:
    return video(50)


@pytest.fixture
def refused(tmp_path):
    """`refused(data)`: the problem that the input fault names; the task must not do anything else."""

    def call(data: bytes) -> str:
        payload = {"video": data, "preset": "ultrafast", "encoder": "software"}
        with pytest.raises(InputFault) as caught:
            load("video_encode_h264")(validate("video_encode_h264", payload), Context(2, tmp_path))
        assert caught.value.field == "video"
        return caught.value.problem

    return call


NO_VIDEO = {
    "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\nduration 1\n",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5000 RTP/AVP 96\r\n"
    b"a=rtpmap:96 H264/90000\r\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>',
    "zero": b"",
    "text": b"hello, this is a text and not a video\n" * 200,
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x04\x00\x00\x00\x04\x08\x02\x00\x00\x00" + bytes(40),
    "gif": b"GIF89a\x10\x00\x10\x00\x80\x00\x00" + bytes(200),
    "wave": b"RIFF\xff\x00\x00\x00WAVEfmt "
    b"\x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00",
}


@pytest.mark.parametrize("name", NO_VIDEO)
def test_a_file_that_is_no_video(refused, name):
    assert refused(NO_VIDEO[name]).startswith("is not a readable video file")


def test_a_file_of_sound_alone(refused):
    assert refused(sound_only()) == "has no video stream"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("container", ["mp4", "faststart", "matroska", "avi"])
def test_a_file_that_was_cut_off(refused, container, share):
    muxer = {"movflags": "faststart"} if container == "faststart" else {}
    fmt = "mp4" if container == "faststart" else container
    data = video(100, container=fmt, muxer=muxer)
    problem = refused(data[: int(len(data) * share)])
    assert "truncated" in problem or "damaged" in problem or "has no frame" in problem, problem


def test_a_file_without_its_last_picture_is_truncated(refused):
    """The length differs by less than is tolerated: the index in front says how many pictures there are."""
    data = video(200, size=(64, 64), sound="", muxer={"movflags": "faststart"}, options={"bf": "0"})
    with av.open(io.BytesIO(data)) as file:
        last = max(packet.pos for packet in file.demux(video=0) if packet.size)
    assert refused(data[:last]) == "is truncated: it ends after 7.96 s of 8.00 s"


def test_an_impossible_place_in_a_file_is_a_fault_of_the_file(tmp_path):
    """FFmpeg seeks from the end of a file without content, and where damaged numbers lead."""
    (tmp_path / "empty").touch()
    with _Reader((tmp_path / "empty").open("rb", buffering=0)) as file:
        for place in ((-1, os.SEEK_END), (1 << 70, os.SEEK_SET)):
            with pytest.raises(ValueError):
                file.seek(*place)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_file_with_a_hole_in_it(refused, clip, at):
    data = bytearray(clip)
    start = int(len(data) * at)
    data[start : start + 6000] = bytes(6000)
    assert "damaged" in refused(bytes(data))


def test_a_part_of_a_longer_video_is_read_in_its_own_format_only(refused, clip, tmp_path):
    part = {"time_base": "1/25", "rate": "25/1"}
    payload = {"video": clip, "part": part, "encoder": "software"}
    with pytest.raises(InputFault, match="is not a readable part of a video"):
        load("video_encode_h264")(validate("video_encode_h264", payload), Context(2, tmp_path))
    assert refused(video(5, container="nut", sound="")).startswith("is not a readable video file")


def test_sizes_are_refused_before_a_picture_is_decoded(refused):
    for side, expected in (
        (9000, "has 9000 x 9000 pixels; the limit is 35 million"),
        (60_000, "is not a readable video"),
    ):
        header = b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\nFRAME\n" % (side, side)
        assert expected in refused(header + bytes(100_000))
    # An SPS of 64,000 by 64,000 before noise: the decoder must not allocate memory for it.
    problem = refused(_huge_h264())
    assert problem.startswith(
        ("is not a readable video", "has no picture size", "has 64000 x 64000 pixels", "has no frame")
    )


def _huge_h264() -> bytes:
    def ue(value: int) -> str:
        text = bin(value + 1)[2:]
        return "0" * (len(text) - 1) + text

    bits = f"{66:08b}{0:08b}{62:08b}" + ue(0) + ue(0) + ue(2) + ue(1) + "0" + ue(3999) + ue(3999) + "1100" + "1"
    bits += "0" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\x00\x00\x00", b"\x00\x00\x03\x00")
    pps = b"\x68\xce\x38\x80"
    return (b"\x00\x00\x00\x01\x67" + body + b"\x00\x00\x00\x01" + pps + b"\x00\x00\x00\x01\x65\x88" + bytes(4000)) * 3


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_pictures_too_small_for_an_encoder(codec, tmp_path):
    tiny = video(3, codec="mpeg4", container="avi", size=(34, 18), sound="", options={"bf": "0"})
    wide = video(3, codec="mpeg4", container="avi", size=(640, 64), sound="", options={"bf": "0"})
    for data, resolution, field in ((tiny, None, "video"), (wide, "320x180", "resolution")):
        payload = validate(f"video_encode_{codec}", {"video": data, "resolution": resolution, "encoder": "software"})
        with pytest.raises(InputFault, match="each side must be at least 64") as caught:
            load(f"video_encode_{codec}")(payload, Context(2, tmp_path))
        assert caught.value.field == field


def test_a_duration_that_is_too_long_or_false(refused):
    data = video(50, container="matroska")
    at = data.index(b"\x44\x89\x88") + 3
    too_long, truncated = "has a duration of 20.0 hours; the limit is 6", "is truncated: it ends after 2.00 s of 3.60 s"
    for hours, problem in ((20, too_long), (0.001, truncated)):
        assert problem in refused(data[:at] + struct.pack(">d", hours * 3_600_000) + data[at + 8 :])


def _outside(clip: bytes, path: str) -> bytes:
    """`clip` with a QuickTime data reference (an alias) that says its pictures lie in the file at `path`."""
    old = clip.index(b"url \x00\x00\x00\x01") - 4
    name = path.encode()
    tail = struct.pack(">HH", 2, len(name)) + name + b"\x00" * (len(name) % 2) + struct.pack(">HH", 0xFFFF, 0)
    alias = bytes(10) + bytes([1]) + b"v".ljust(27, b"\x00") + bytes(12) + bytes([1]) + b"f".ljust(63, b"\x00")
    alias += bytes(16) + struct.pack(">HH", 1, 1) + bytes(16) + tail
    box = struct.pack(">I", 12 + len(alias)) + b"alis" + bytes(4) + alias
    data = bytearray(clip[:old] + box + clip[old + 12 :])
    # Every enclosing box grows; the video track comes first, so the first box of each name is the right one.
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.index(kind) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + len(box) - 12)
    return bytes(data)


def test_a_video_that_lies_in_another_file(refused, clip, tmp_path):
    elsewhere = tmp_path / "elsewhere.mp4"
    elsewhere.write_bytes(clip)
    data = _outside(clip, str(elsewhere))
    # The bait works: a demuxer that follows references by name reads the pictures of the other file.
    (tmp_path / "bait.mp4").write_bytes(data)
    careless = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(tmp_path / "bait.mp4"), options=careless) as container:
        assert len(list(container.decode(video=0))) == 50
    assert refused(data)


def test_nothing_is_opened_beside_the_file_even_when_a_demuxer_would(clip, monkeypatch):
    """Disabled protocols and the refusing hook each suffice alone."""
    from mesh.splitting import media

    monkeypatch.setattr(media, "DEMUXERS", "hls,concat,sdp,dash")
    for name in ("m3u8", "ffconcat", "sdp"):
        with pytest.raises(MediaFault), opened(NO_VIDEO[name]):
            pass


def test_without_the_library_the_kinds_say_so():
    script = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\n"
        "from node.executor.context import Context, load\n"
        "from mesh.kinds.table import KINDS, validate\n"
        "for codec in ('h264', 'h265', 'av1'):\n"
        "    spec = KINDS[f'video_encode_{codec}']\n"
        "    try: load(spec.name)(validate(spec.name, spec.example), Context(1, Path('.')))\n"
        "    except ImportError as error: print('absent', error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["absent", "av"] * 3
