"""Encodes a video that is not cut as one task, with all cores of its node. The client decodes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.splitting.media import MediaFault
from mesh.splitting.media_table import CONVERTED, DROPPED, KEPT
from mesh.splitting.video_cut import SourceVideo
from mesh.splitting.video_job import EncodeJob, EncodeProgress, delete, fetch, video_fault

if TYPE_CHECKING:
    from mesh.messages import TaskEnd

#: The fields of a task's `info` that describe the encoding.
_FACTS = ("encoder", "frames", "duration_s", "width", "height", "bit_rate", "audio", "damaged_frames", "damaged_sound")


async def encode(job: EncodeJob, video: SourceVideo, target: Path, reason: str) -> dict[str, Any]:
    """Encode the whole file into `target`; returns the facts. `reason`: why it is not encoded in parts.

    Raises: MediaFault for a video that the node refuses; TaskFailed, NotFound, OSError; as `Mesh.start`.
    """
    mesh = job.mesh
    progress = EncodeProgress(video.packets, 1, "encoding", one_task=reason)
    job.report(progress)
    blob = (await mesh.put_blob(video.path, "application/octet-stream")).blob
    container = job.settings.container
    fields = {"encoder": "software", **job.payload, "container": container, "video": {"blob": blob}}
    try:
        handle = await mesh.start(job.kind, fields, **job.options)
        progress.tasks = [handle.id]
        ended = False
        try:
            async for view in mesh.watch(handle.id):
                progress.done = round(video.packets * view.progress)
                job.report(progress)
            end = await handle.end()
            ended = True
        finally:
            if not ended:
                await handle.cancel()
    finally:
        await delete(mesh, blob)
    if fault := video_fault(end):
        raise MediaFault(fault)
    await fetch(mesh, end, target)
    progress.done, progress.parts_done = video.packets, 1
    progress.tasks.clear()
    job.report(progress)
    return facts(end, reason)


def facts(end: TaskEnd, reason: str) -> dict[str, Any]:
    """The fields of the result that describe the encoding. Pure."""
    found = {name: end.info.get(name) for name in (*_FACTS, KEPT, CONVERTED, DROPPED)}
    return found | {"parts": 1, "nodes": [end.node], "one_task": reason}
