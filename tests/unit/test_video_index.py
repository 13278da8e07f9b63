"""A video whose packets say what they hold is cut without decoding it; every other one is decoded, as before."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.splitting import video_compare, video_cut, video_join
from mesh.splitting.media import Decoding, MediaFault
from mesh.splitting.video_compare import OtherPictures, Samples
from mesh.splitting.video_cut import SourceVideo
from mesh.splitting.video_units import Unclear, Units, length_bytes, units_of
from node.executor.context import InputFault
from tests.video_parts import encoded_part, parts_of
from tests.videos import lying, read, spoiled, video

SIZE = (128, 96)
X265 = {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=4:scenecut=0:open-gop="}
OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0", "preset": "fast"}
TRUSTED: dict[str, dict[str, Any]] = {
    "H.264 in MP4": {},
    "H.264 in MP4, B-frames refer to B-frames": {"options": {"preset": "medium", "bf": "4"}},
    "H.264 in Matroska": {"container": "matroska", "rate": Fraction(30000, 1001)},
    "H.264 in MOV, turned": {"container": "mov", "rotation": 90},
    "H.264 in MOV, fields": {"container": "mov", "options": {"flags": "+ilme+ildct", "x264-params": "tff=1"}},
    "H.264 in fragments": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "H.265 in MP4": {"codec": "libx265", "options": {key: value + "0" for key, value in X265.items()}},
    "parameter sets at each start": {"options": {"x264-params": "repeat-headers=1"}, "container": "mov"},
}
DECODED: dict[str, dict[str, Any]] = {
    "H.264, open groups": {"options": OPEN},
    "H.265, open groups": {"codec": "libx265", "options": {key: value + "1" for key, value in X265.items()}},
    "H.264, gradual refresh": {"options": {"x264-params": "intra-refresh=1:keyint=12", "bf": "0"}},
    "H.264 in a transport stream": {"container": "mpegts"},
    "H.264 in AVI": {"container": "avi"},
    "MPEG-4": {"codec": "mpeg4"},
    "ProRes": {"codec": "prores_ks", "container": "mov", "pixel_format": "yuv422p10le"},
}


def _film(data: bytes, folder: Path, part_s: float = 0.8) -> SourceVideo:
    folder.mkdir(exist_ok=True)
    (folder / "source").write_bytes(data)
    return video_cut.analyse(folder / "source", part_s)


def _source(making: dict[str, Any]) -> bytes:
    return video(60, **{"size": SIZE, "gop": 12, "sound": "", **making})


@pytest.mark.parametrize("name", TRUSTED)
def test_the_parts_by_packets_are_byte_for_byte_those_of_decoding(name: str, tmp_path: Path) -> None:
    film = _film(_source(TRUSTED[name]), tmp_path)
    assert film.pieces is not None
    copied = [(cut.piece, cut.path.read_bytes(), cut.samples) for cut in video_cut.cut(film, tmp_path)]
    decoded = [(cut.piece, cut.path.read_bytes(), None) for cut in video_cut.cut(replace(film, pieces=None), tmp_path)]
    assert len(copied) >= 3 and copied == decoded
    assert tuple(piece for piece, _, _ in copied) == film.pieces


@pytest.mark.parametrize("name", DECODED)
def test_what_packets_do_not_say_for_certain_is_decoded(name: str, tmp_path: Path) -> None:
    assert _film(_source(DECODED[name]), tmp_path).pieces is None


def test_the_client_decodes_only_the_pictures_that_carry_facts(tmp_path: Path, monkeypatch: Any) -> None:
    decoded: list[int] = []
    frames = Decoding.frames

    def counted(self: Decoding, packet: Any) -> list[Any]:
        found = frames(self, packet)
        decoded.append(len(found))
        return found

    data = video(100, size=SIZE, gop=12)
    monkeypatch.setattr(Decoding, "frames", counted)
    film = _film(data, tmp_path)
    assert len(list(video_cut.cut(film, tmp_path))) == 4
    assert 0 < sum(decoded) < 10
    assert _film(data, tmp_path / "short", 3.0).short and not _film(data, tmp_path / "two", 2.0).short


def test_packets_with_wrong_times_are_refused_by_the_node_and_decoding_keeps_the_frames(tmp_path: Path) -> None:
    data = lying()
    film = _film(data, tmp_path)
    assert film.pieces is not None
    cuts = list(video_cut.cut(film, tmp_path))
    with pytest.raises(InputFault, match="other frames than where it was cut"):
        for cut in cuts:
            encoded_part(film, cut, tmp_path / "task")
    _, _, parts = parts_of(data, tmp_path, decodes=True)
    assert sum(len(part.times) for part in parts) == 60


def test_a_damaged_picture_is_refused_by_the_node_and_named_by_decoding(tmp_path: Path) -> None:
    film = _film(spoiled(), tmp_path)
    assert film.pieces is not None
    cut = list(video_cut.cut(film, tmp_path))[1]
    with pytest.raises(InputFault, match="is a part"):
        encoded_part(film, cut, tmp_path / "task")
    with pytest.raises(MediaFault, match="is damaged at"):
        list(video_cut.cut(replace(film, pieces=None), tmp_path))


def test_a_part_that_changes_its_size_is_refused_by_the_node(tmp_path: Path) -> None:
    film = _film(video(60, size=SIZE, gop=12, sound=""), tmp_path)
    other = _film(video(60, size=(160, 96), gop=12, sound=""), tmp_path / "other")
    first, second = next(video_cut.cut(film, tmp_path)), next(video_cut.cut(other, tmp_path / "other"))
    from mesh.splitting import video_part

    packets = []
    for path in (first.path, second.path):
        with path.open("rb") as file:
            header = video_part.read_header(file)
            packets.append((header, list(video_part.read_packets(file, header))))
    # The second half is of another size and brings its parameters along.
    (header, own), (strange, others) = packets
    others[0].side = [("new_extradata", strange.coding.extradata)]
    for packet in others:
        packet.times = [packet.times[0] + own[-1].times[0] + 10_000]
    mixed = [*own, *others]
    video_part.write(first.path, video_part.Header(header.coding, len(mixed), len(mixed)), mixed)
    with pytest.raises(InputFault, match="changes its picture size"):
        encoded_part(film, first, tmp_path / "task")


def test_the_node_compares_the_frames_that_it_encoded(tmp_path: Path) -> None:
    film = _film(video(60, size=SIZE, gop=25, sound="", rotation=90), tmp_path)
    cut = next(video_cut.cut(film, tmp_path))
    output = encoded_part(film, cut, tmp_path / "task", preset="medium", crf=20)
    assert isinstance(output.data, Path)
    assert 4 <= output.info["compared"] <= len(cut.piece.shown) and output.info["least_db"] > 30
    part = video_join.check(output.data, film, cut, output.info)
    assert sorted(part.times) == list(cut.piece.times)
    for missing in ({}, {"compared": 0, "least_db": 99.0}, {"compared": 9}, {"compared": 9, "least_db": "99"}):
        with pytest.raises(MediaFault, match="was not compared"):
            video_join.check(output.data, film, cut, missing)
    with pytest.raises(OtherPictures, match=r"has a frame 13 that is not the one of the source \(PSNR 12.5 dB\)"):
        video_join.check(output.data, film, cut, {"compared": 9, "least_db": 12.5, "least_frame": 12})


def test_each_sampled_frame_is_compared_with_its_own(tmp_path: Path) -> None:
    """Frames that no other refers to are passed over, so the number of a decoded frame is not that of the output."""
    data = video(60, size=SIZE, gop=60, sound="", options={"preset": "medium", "bf": "3"})
    (tmp_path / "film.mp4").write_bytes(data)
    shown = read(data).numbers
    with av.open(io.BytesIO(data)) as file:
        samples = Samples("none")
        assert len(list(samples.of(file.decode(video=0)))) == len(shown) == 60
    found = samples.compared(tmp_path / "film.mp4", 1)
    assert 8 <= found["compared"] < len(samples.copies) and found["least_db"] == video_compare.EQUAL_DB
    wrong = next(number for number in sorted(samples.copies, reverse=True) if number % 12 == 0)
    results = []
    for number in samples.copies:
        other = Samples("none", {**samples.copies, number: 255 - samples.copies[number]})
        results.append(other.compared(tmp_path / "film.mp4", 1))
    seen = {result["least_frame"] for result in results if result["least_db"] < 19}
    assert len(seen) == found["compared"] and max(seen) >= wrong - 12 and 0 in seen


def test_a_damaged_encoding_is_no_fault_of_the_source(tmp_path: Path) -> None:
    data = bytearray(video(60, size=SIZE, sound=""))
    middle = len(data) * 2 // 3
    data[middle : middle + 900] = bytes(900)
    (tmp_path / "film.mp4").write_bytes(data)
    with pytest.raises(MediaFault, match="is damaged"):
        Samples("none", {0: np.zeros((64, 64, 3), np.uint8)}).compared(tmp_path / "film.mp4", 1)


AVC = {1: (False, False), 5: (True, False), 6: None, 7: (None, True), 8: (None, True), 9: None, 12: None}


@given(st.lists(st.sampled_from(sorted(AVC)), min_size=1, max_size=8), st.sampled_from([1, 2, 4]), st.data())
def test_a_packet_starts_anew_when_all_its_slices_do(kinds: list[int], length: int, data: st.DataObject) -> None:
    units = [bytes([0x60 | kind]) + data.draw(st.binary(min_size=2, max_size=60)) for kind in kinds]
    packet = b"".join(len(unit).to_bytes(length, "big") + unit for unit in units)
    slices = [kind for kind in kinds if kind in (1, 5)]
    if not slices:
        with pytest.raises(Unclear):
            units_of("h264", memoryview(packet), length)
        return
    assert units_of("h264", memoryview(packet), length) == Units(1 not in slices, bool({7, 8} & {*kinds}))
    with pytest.raises(Unclear):
        units_of("h264", memoryview(packet[:-1]), length)


@given(st.binary(max_size=80), st.sampled_from(["h264", "hevc"]), st.sampled_from([1, 2, 3, 4]))
def test_any_bytes_are_units_or_unclear(packet: bytes, codec: str, length: int) -> None:
    try:
        assert isinstance(units_of(codec, memoryview(packet), length), Units)
    except Unclear:
        pass


def test_h265_starts_anew_only_without_pictures_before_it() -> None:
    def packet(kind: int, layer: int = 0, first: int = 0x80) -> memoryview:
        unit = bytes([kind << 1 | layer >> 5, (layer & 31) << 3 | 1, first, 0])
        return memoryview(len(unit).to_bytes(4, "big") + unit)

    assert units_of("hevc", packet(19), 4).anew and units_of("hevc", packet(20), 4).anew
    assert not any(units_of("hevc", packet(kind), 4).anew for kind in (0, 1, 16, 17, 18, 21))
    assert not units_of("hevc", packet(19, first=0xC0), 4).anew, "it drops the pictures that wait"
    with pytest.raises(Unclear):
        units_of("hevc", packet(19, layer=1), 4)
    assert [length_bytes("hevc", b"\x01" + bytes(20) + bytes([size]) + bytes(9)) for size in (0, 3)] == [1, 4]
    assert length_bytes("h264", b"\0\0\0\1g") == length_bytes("av1", b"\x01" * 30) == length_bytes("h264", b"\x01") == 0
