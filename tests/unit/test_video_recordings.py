"""Recordings (transport and program streams) that were joined, or lost packets, are encoded as FFmpeg's tools do."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from mesh.splitting.video_plan import CannotCut
from node.executor.context import InputFault
from tests.encodings import Info, encoded, facts_in
from tests.films import Film, Sound
from tests.videos import Read, psnr, read, video

TS = 188


def _recording(container: str = "mpegts", sound: str = "aac", frames: int = 50, first: int = 0) -> bytes:
    codec, options = ("mpeg2video", {"qscale": "3", "b": "3000000"}) if container == "mpeg" else ("libx264", {})
    return video(frames, codec, container, gop=10, sound=sound, size=(160, 96), options=options, first=first)


def _without(data: bytes, *packets: int) -> bytes:
    return b"".join(data[at : at + TS] for at in range(0, len(data), TS) if at // TS not in packets)


def _single(data: bytes, folder: Path, container: str = "mp4") -> tuple[Read, Info]:
    path, info = encoded("single", data, folder, container=container, crf=12)
    return read(path), info


@pytest.mark.parametrize(
    ("container", "sound", "target"),
    [("mpegts", "aac", "mp4"), ("mpegts", "mp2", "mp4"), ("mpegts", "mp2", "mkv"), ("mpeg", "mp2", "mp4")],
)
def test_joined_recordings_are_encoded_whole_and_in_step(container, sound, target, tmp_path) -> None:
    """`cat a.ts b.ts > c.ts`: the clock jumps back; each picture is shown once, and sound stays with its picture."""
    data = _recording(container, sound) + _recording(container, sound, first=50) + _recording(container, sound)
    found, info = _single(data, tmp_path, target)
    assert len(found.times) == 150 and found.numbers == [*range(100), *range(50)]
    assert all(0 < later - time < 0.2 for time, later in zip(found.times, found.times[1:], strict=False))
    assert abs(found.times[-1] - 6) < 0.2 and abs(found.sound_span[1] - 6) < 0.2
    assert any(text.startswith("clock jumps: 2, the first at ") for text in info["converted"])
    with pytest.raises(CannotCut, match=r"has times that jump at \d\.\d\d s, as joined recordings have"):
        encoded("chunked", data, tmp_path)


def test_a_clock_that_jumps_by_hours_does_not_make_a_recording_too_long(tmp_path) -> None:
    late = Film(container="mpegts", codec="mpeg2video", starts=40_000.0).data()
    early = Film(container="mpegts", codec="mpeg2video").data()
    for data in (late + early, early + late):
        found, info = _single(data, tmp_path)
        assert len(found.times) == 50 and 1.9 < found.times[-1] < 2.1
        assert "clock jumps" in facts_in(info, "converted")


def test_a_recording_without_some_of_its_packets_is_encoded_and_says_so(tmp_path) -> None:
    data = _recording()
    count = len(data) // TS
    found, info = _single(_without(data, count // 3, count // 2, 2 * count // 3), tmp_path)
    assert 1 <= info["damaged_frames"] <= 30 and 50 - 30 <= len(found.times) <= 50
    assert "damaged pictures" in facts_in(info, "converted")
    assert abs(found.times[-1] - 2) < 0.2 and abs(found.sound_span[1] - 2) < 0.2, "sound and picture end together"
    undamaged = read(data)
    assert psnr(found.luma[0], undamaged.luma[0]) > 30 and found.numbers[-1] == 49
    with pytest.raises(CannotCut, match="is damaged at"):
        encoded("chunked", _without(data, count // 3), tmp_path)


def test_lost_sound_is_counted_and_the_pictures_are_cut_all_the_same(tmp_path) -> None:
    """Only packets of sound are missing: the pictures can be encoded in parts."""
    data = _recording()
    sound = [at for at in range(0, len(data), TS) if data[at + 1] & 0x1F == 1 and data[at + 2] == 1]
    data = _without(data, sound[len(sound) // 3] // TS, sound[2 * len(sound) // 3] // TS)
    for way in ("single", "chunked"):
        path, info = encoded(way, data, tmp_path)
        found = read(path)
        assert len(found.times) == 50 and abs(found.sound_span[1] - 2) < 0.2
        assert "damaged sound" in facts_in(info, "dropped") and "damaged pictures" not in facts_in(info, "converted")


def test_a_recording_that_is_damaged_throughout_is_refused(tmp_path) -> None:
    data = bytearray(_recording(sound="", frames=100))
    for at in range(20 * TS, len(data), TS):
        data[at + 40 : at + TS - 8] = bytes((at // TS * 37 + byte) % 251 for byte in range(TS - 48))
    with pytest.raises(InputFault, match=r"is damaged: \d+ of \d+ pictures are whole"):
        _single(bytes(data), tmp_path)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_recording_that_changes_its_channels_keeps_its_sound(codec, container, tmp_path) -> None:
    """A film in stereo after an advertisement in mono; AAC can't be copied then, as a container notes it once."""
    mono, stereo = (
        Film(container="mpegts", frames=50, sounds=(Sound(codec, layout, seconds=2.0),)).data()
        for layout in ("mono", "stereo")
    )
    path, info = encoded("single", mono + stereo, tmp_path, container=container)
    with av.open(str(path)) as file:
        heard = list(file.decode(audio=0))
    samples = sum(frame.samples for frame in heard)
    assert abs(samples / 48000 - 4) < 0.3
    loud = [float(abs(frame.to_ndarray()).max()) for frame in heard[4:-4]]
    assert sum(level < 0.05 for level in loud) <= 4, "a tone all the time, but where the second one begins"
    if codec == "aac":
        assert any(text.endswith("it changes its channels or its rate") for text in info["converted"])
