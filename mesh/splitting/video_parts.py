"""Encodes the parts of a video on the mesh: a task each, as many at once as the mesh has room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import Busy, QueztlError, TaskFailed
from mesh.kinds.video import VideoPayload
from mesh.splitting import video_cut, video_join, video_part
from mesh.splitting.media import MediaFault
from mesh.splitting.media_formats import SOFTWARE
from mesh.splitting.media_plan import Target
from mesh.splitting.video_cut import CutPart
from mesh.splitting.video_plan import CannotCut

if TYPE_CHECKING:
    from mesh.client import Mesh, TaskHandle
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


class PartsEncoding:
    """Encodes the parts: one open task per worker slot of the mesh, and one more per node."""

    def __init__(
        self,
        mesh: Mesh,
        kind: str,
        payload: dict[str, Any],
        options: dict[str, Any],
        video: video_cut.SourceVideo,
        folder: Path,
        on_progress: OnProgress | None,
    ) -> None:
        self._mesh, self._kind, self._payload, self._options = mesh, kind, payload, options
        self._video, self._folder, self._on_progress = video, folder, on_progress
        self.progress = EncodeProgress(video.packets, video.parts)
        self.encoders: set[str] = set()
        self.size = (0, 0)
        self._parts: dict[int, video_join.Part] = {}
        self._open: dict[asyncio.Task[video_join.Part], tuple[int, str, TaskHandle]] = {}
        self._cut = video_cut.cut(video, folder)
        self._ready: CutPart | None = None
        """The part that is cut but not submitted yet."""
        self._all_cut = False
        self._frames = self._count = 0
        """Frames and number of the parts that are cut."""

    async def run(self) -> list[video_join.Part]:
        """Run until every part is done; returns the parts in order.

        Raises: CannotCut when the video must be encoded as one task; MediaFault, TaskFailed, OSError.
        """
        self.begin_phase("encoding")
        while True:
            await self._fill()
            if not self._open:
                return [self._parts[number] for number in sorted(self._parts)]
            done, _ = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number, blob, _ = self._open[task]
                part = task.result()
                del self._open[task]
                self._parts[number] = part
                self.progress.done += len(part.times)
                self.progress.parts_done += 1
                await delete(self._mesh, blob)
            self._report()

    async def stop(self) -> None:
        """Cancel the open tasks, here and on the nodes, and delete their uploads."""
        waiting = dict(self._open)
        self._open.clear()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*(handle.cancel() for _, _, handle in waiting.values()), return_exceptions=True)
        await asyncio.gather(*(delete(self._mesh, blob) for _, blob, _ in waiting.values()))
        with suppress(ValueError):  # the generator is running in a thread, which ends by itself
            self._cut.close()

    async def _fill(self) -> None:
        nodes = [node for node in await self._mesh.nodes() if node.state == "up"]
        limit = sum(node.slots + 1 for node in nodes) or 1
        while len(self._open) < limit and await self._cut_next():
            part = self._ready
            assert part is not None
            try:
                blob = (await self._mesh.put_blob(part.path, video_part.CONTENT_TYPE)).blob
                handle = await self._start(blob)
            except Busy as busy:  # a full queue, or no bus: the task was not accepted, so a retry repeats nothing
                if not self._open:
                    await asyncio.sleep(busy.retry_after_s)
                    continue
                return
            self._ready = None
            part.path.unlink()
            number = part.piece.number
            waiting = asyncio.create_task(self._part(part, handle), name=f"part {number}")
            self._open[waiting] = number, blob, handle
            self._report()

    async def _cut_next(self) -> bool:
        """Cut the next part unless one is ready; False after the last one. Raises: CannotCut, MediaFault."""
        if self._ready is None and not self._all_cut:
            self._ready = part = await asyncio.to_thread(next, self._cut, None)
            self._all_cut = part is None
            if part is not None:
                self._frames += len(part.piece.shown)
                self._count = part.piece.number + 1
            exact = self._all_cut
            self.progress.frames = self._frames if exact else max(self.progress.frames, self._frames)
            self.progress.parts = self._count if exact else max(self.progress.parts, self._count)
        return self._ready is not None

    async def _start(self, blob: str) -> TaskHandle:
        try:
            return await self._mesh.start(self._kind, self._task(blob), **self._options)
        except BaseException:
            await delete(self._mesh, blob)
            raise

    def _task(self, blob: str) -> dict[str, Any]:
        video = self._video
        part = {
            "time_base": f"{video.time_base.numerator}/{video.time_base.denominator}",
            "rate": f"{video.rate.numerator}/{video.rate.denominator}",
            "picture": video.facts.picture.model_dump(mode="json", exclude_defaults=True),
        }
        return {**self._payload, "video": {"blob": blob}, "part": part}

    async def _part(self, cut: CutPart, handle: TaskHandle) -> video_join.Part:
        end = await handle.end()
        number = cut.piece.number
        if end.error is not None and any(name == "payload.video" for name, _ in end.error.faults):
            raise CannotCut(f"has a part {number + 1} that a node can't decode ({end.error.message})")
        path = self._folder / f"encoded-{number}.mp4"
        await fetch(self._mesh, end, path)
        try:
            part = await asyncio.to_thread(video_join.check, path, self._video, cut)
        except video_join.OtherPictures as fault:
            raise CannotCut(f"has a part {number + 1} whose encoding {fault}") from None
        except MediaFault as fault:
            reason = f"its part {number + 1} {fault}"
            raise TaskFailed(f"task {handle.id}: {reason}", handle.id, "done", reason) from None
        self.progress.nodes.add(end.node)
        info = end.info or {}
        self.encoders.add(str(info.get("encoder", "")))
        self.size = (int(info.get("width", 0)), int(info.get("height", 0)))
        return part

    def target(self, codec: str, settings: VideoPayload) -> Target:
        """The settings of the joined video that its facts depend on."""
        return Target(
            codec=codec,
            container=settings.container,
            software=all(encoder in SOFTWARE for encoder in self.encoders),
            audio=settings.audio == "keep",
            location=settings.location == "keep",
        )

    def facts(self, parts: list[video_join.Part]) -> dict[str, Any]:
        """The fields of the result that describe the encoding."""
        times = [time for part in parts for time in part.times]
        seconds = self._video.seconds(min(times), max(times))
        return {
            "encoder": ", ".join(sorted(self.encoders)),
            "frames": len(times),
            "duration_s": round(seconds, 6),
            "width": self.size[0],
            "height": self.size[1],
            "bit_rate": round(sum(part.bytes for part in parts) * 8 / seconds),
            "parts": len(parts),
            "nodes": sorted(self.progress.nodes),
        }

    def begin_phase(self, name: str) -> None:
        """Enter a phase and report it."""
        self.progress.phase, self.progress.done = name, 0
        self._report()

    def report_joined(self, frames: int) -> None:
        """Record the frames joined so far; called from another thread."""
        self.progress.done = frames

    def _report(self) -> None:
        self.progress.tasks = [handle.id for _, _, handle in self._open.values()]
        if self._on_progress is not None:
            self._on_progress(self.progress)
