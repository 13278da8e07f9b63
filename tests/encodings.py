"""Encodes a file as one task and in parts, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mesh.kinds.table import validate
from mesh.splitting import video_join
from mesh.splitting.media_plan import Target
from node.executor.context import Context, load
from tests.video_parts import parts_of

WAYS = ("single", "chunked")
every_way = pytest.mark.parametrize("way", WAYS)
every_container = pytest.mark.parametrize("container", ["mp4", "mkv"])
Info = dict[str, Any]


def encoded(
    way: str, data: bytes, folder: Path, codec: str = "h264", container: str = "mp4", **payload: Any
) -> tuple[Path, Info]:
    """The result of encoding `data` as one task or in parts, and what it says about its facts."""
    if way == "single":
        kind = f"video_encode_{codec}"
        given = {"video": data, "preset": "ultrafast", "encoder": "software", "container": container, **payload}
        output = load(kind)(validate(kind, given), Context(cores=1, folder=folder))
        assert isinstance(output.data, Path)
        return output.data, output.info
    location = payload.pop("location", "drop") == "keep"
    film, _, parts = parts_of(data, folder, codec, **payload)
    target = Target(codec, container, location=location)
    joined = video_join.join(film, parts, folder / f"joined.{container}", target, lambda frames: None)
    return folder / f"joined.{container}", joined.outcome.as_info()


def made(way: str, data: bytes, folder: Path, codec: str = "h264", container: str = "mp4", **payload: Any) -> Path:
    """The file of `encoded`."""
    return encoded(way, data, folder, codec, container, **payload)[0]


def facts_in(info: Info, fate: str) -> set[str]:
    """The names of the facts with this fate."""
    return {entry.split(":")[0].split(";")[0] for entry in info[fate]}
