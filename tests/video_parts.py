"""Cuts a video, encodes each part in this process as a node would, and joins them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.kinds.table import validate
from mesh.splitting import video_cut, video_join
from mesh.splitting.media_plan import Target
from mesh.splitting.video_cut import CutPart, SourceVideo
from mesh.splitting.video_join import Part
from node.executor.context import Context, Output, load

QUICK = {"preset": "ultrafast", "encoder": "software"}


def one_task(data: bytes, folder: Path, codec: str = "h264", **payload: Any) -> Output:
    """Encode a whole video as one task."""
    folder.mkdir(exist_ok=True)
    kind = f"video_encode_{codec}"
    return load(kind)(validate(kind, {"video": data, **QUICK, **payload}), Context(2, folder))


def encoded_part(film: SourceVideo, cut: CutPart, folder: Path, codec: str = "h264", **payload: Any) -> Output:
    """Encode one part."""
    part = {
        "time_base": f"{film.time_base.numerator}/{film.time_base.denominator}",
        "rate": f"{film.rate.numerator}/{film.rate.denominator}",
        "picture": film.facts.picture.model_dump(mode="json", exclude_defaults=True),
        "compare": cut.samples is None,
    }
    given = {"video": cut.path.read_bytes(), **QUICK, "threads": 1, **payload, "part": part, "audio": "drop"}
    folder.mkdir(exist_ok=True)
    kind = f"video_encode_{codec}"
    return load(kind)(validate(kind, given), Context(1, folder))


def parts_of(
    data: bytes, folder: Path, codec: str = "h264", part_s: float = 0.8, decodes: bool = False, **payload: Any
) -> tuple[SourceVideo, list[CutPart], list[Part]]:
    """Cut a video and encode every part; the client checks each. `decodes`: the client decodes the video to cut it."""
    (folder / "source").write_bytes(data)
    film = video_cut.analyse(folder / "source", part_s)
    film = replace(film, pieces=None) if decodes else film
    cuts, parts = [], []
    for cut in video_cut.cut(film, folder):
        output = encoded_part(film, cut, folder / f"task-{cut.piece.number}", codec, **payload)
        assert isinstance(output.data, Path)
        cuts.append(cut)
        parts.append(video_join.check(output.data, film, cut, output.info))
    return film, cuts, parts


def joined(data: bytes, folder: Path, codec: str = "h264", part_s: float = 0.8, **payload: Any) -> Path:
    """Encode a video in parts and join them."""
    folder.mkdir(exist_ok=True)
    film, _, parts = parts_of(data, folder, codec, part_s, **payload)
    video_join.join(film, parts, folder / "joined.mp4", Target(codec, "mp4"), lambda frames: None)
    return folder / "joined.mp4"
