"""The facts of a video besides its frames: single and chunked encoding carry the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mesh.kinds.table import validate
from mesh.kinds.video_picture import TURNS, turn_of
from mesh.splitting import video_join
from mesh.splitting.media_facts import read_facts
from node.executor.context import Context, load
from tests.unit.test_splitting_video import parts_of
from tests.videos import psnr, read, video

WAYS = ("single", "chunked")
every_way = pytest.mark.parametrize("way", WAYS)
ONE = 1 << 16


def made(way: str, data: bytes, folder: Path, codec: str = "h264", container: str = "mp4", **payload: Any) -> Path:
    """The result of encoding `data` as one task or in parts."""
    if way == "single":
        kind = f"video_encode_{codec}"
        given = {"video": data, "preset": "ultrafast", "encoder": "software", "container": container, **payload}
        path = load(kind)(validate(kind, given), Context(cores=1, folder=folder)).data
        assert isinstance(path, Path)
        return path
    film, parts = parts_of(data, folder, codec, **payload)
    video_join.join(film, parts, folder / f"joined.{container}", container, True, lambda frames: None)
    return folder / f"joined.{container}"


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
