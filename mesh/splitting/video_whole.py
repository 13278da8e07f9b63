"""Encodes a video that can't be cut as one task, with all cores of its node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import VideoPayload
from mesh.splitting.media_table import CONVERTED, DROPPED, KEPT
from mesh.splitting.video_cut import SourceVideo
from mesh.splitting.video_parts import EncodeProgress, OnProgress, delete, fetch

if TYPE_CHECKING:
    from mesh.client import Mesh
    from mesh.messages import TaskEnd

#: The fields of a task's `info` that describe the encoding.
_FACTS = ("encoder", "frames", "duration_s", "width", "height", "bit_rate", "audio", "damaged_frames", "damaged_sound")


async def encode(
    mesh: Mesh,
    kind: str,
    video: SourceVideo,
    payload: dict[str, Any],
    settings: VideoPayload,
    options: dict[str, Any],
    target: Path,
    reason: str,
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    """Encode the whole file into `target`; returns the facts. `reason`: why it is not encoded in parts.

    Raises: TaskFailed, NotFound, OSError; as `Mesh.start`.
    """
    progress = EncodeProgress(video.packets, 1, "encoding", one_task=reason)
    _report(progress, on_progress)
    blob = (await mesh.put_blob(video.path, "application/octet-stream")).blob
    fields = {"encoder": "software", **payload, "container": settings.container, "video": {"blob": blob}}
    try:
        handle = await mesh.start(kind, fields, **options)
        progress.tasks = [handle.id]
        ended = False
        try:
            async for view in mesh.watch(handle.id):
                progress.done = round(video.packets * view.progress)
                _report(progress, on_progress)
            end = await handle.end()
            ended = True
        finally:
            if not ended:
                await handle.cancel()
    finally:
        await delete(mesh, blob)
    await fetch(mesh, end, target)
    progress.done, progress.parts_done = video.packets, 1
    progress.tasks.clear()
    _report(progress, on_progress)
    return facts(end, reason)


def facts(end: TaskEnd, reason: str) -> dict[str, Any]:
    """The fields of the result that describe the encoding. Pure."""
    found = {name: end.info.get(name) for name in (*_FACTS, KEPT, CONVERTED, DROPPED)}
    return found | {"parts": 1, "nodes": [end.node], "one_task": reason}


def _report(progress: EncodeProgress, on_progress: OnProgress | None) -> None:
    if on_progress is not None:
        on_progress(progress)
