"""An encoding of a video on the mesh: what is asked for, how far it is, and the transfer of its results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mesh.errors import QueztlError
from mesh.kinds.video import VideoPayload

if TYPE_CHECKING:
    from pathlib import Path

    from mesh.client import Mesh
    from mesh.messages import TaskEnd


@dataclass
class EncodeProgress:
    """The progress of an encoding. All frames are those of the result."""

    frames: int
    """Until the whole video is cut, an estimate."""
    parts: int
    """Until the whole video is cut, an estimate."""
    phase: str = "reading"
    """reading, encoding or joining"""
    done: int = 0
    """Frames encoded and checked; while joining, frames joined."""
    parts_done: int = 0
    nodes: set[str] = field(default_factory=set)
    tasks: list[str] = field(default_factory=list)
    """Ids of the open tasks."""
    one_task: str = ""
    """Why the video is encoded as one task; "" while it is encoded in parts."""


OnProgress = Callable[[EncodeProgress], None]


@dataclass(frozen=True)
class EncodeJob:
    """What is to be encoded how; the same for all parts, and for one task."""

    mesh: Mesh
    codec: str
    """h264, h265 or av1"""
    payload: dict[str, Any]
    """The fields as they were given."""
    settings: VideoPayload
    """The validated payload of each part."""
    options: dict[str, Any]
    """Of `Mesh.start`, for each task."""
    on_progress: OnProgress | None = None

    @property
    def kind(self) -> str:
        """The kind of the tasks."""
        return f"video_encode_{self.codec}"

    def report(self, progress: EncodeProgress) -> None:
        """Tell the caller."""
        if self.on_progress is not None:
            self.on_progress(progress)


async def fetch(mesh: Mesh, end: TaskEnd, path: Path) -> None:
    """Write the result of a task to `path`, and delete it from the mesh. Raises: TaskFailed, NotFound, OSError."""
    if end.state == "done" and end.result_ref is not None:
        await mesh.bus.objects.fetch(end.result_ref.blob, path)
        await delete(mesh, end.result_ref.blob)
        return
    value = await mesh.value(end)
    path.write_bytes(value if isinstance(value, bytes) else b"")


async def delete(mesh: Mesh, blob: str) -> None:
    """Delete a blob if the mesh can be reached; otherwise the mesh deletes it after a while."""
    with suppress(QueztlError):
        await mesh.bus.objects.delete(blob)


def video_fault(end: TaskEnd) -> str:
    """What a task that has failed says about its video, as a phrase that follows its name; "" for nothing. Pure."""
    faults = end.error.faults if end.error is not None else ()
    return next((problem for name, problem in faults if name == "payload.video"), "")
