"""Encodes the parts of a video on the mesh: a task each, as many at once as the mesh has room for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import Busy, TaskFailed
from mesh.splitting import video_cut, video_join, video_part
from mesh.splitting.media import MediaFault
from mesh.splitting.media_formats import SOFTWARE
from mesh.splitting.media_plan import Target
from mesh.splitting.video_compare import OtherPictures
from mesh.splitting.video_cut import CutPart
from mesh.splitting.video_job import EncodeJob, EncodeProgress, delete, fetch, video_fault
from mesh.splitting.video_plan import CannotCut

if TYPE_CHECKING:
    from mesh.client import TaskHandle

#: Of the tasks: the same bytes for any number of nodes.
DEFAULTS = {"encoder": "software", "threads": 1}


class UndecodablePart(CannotCut):
    """A part that a node can't decode."""


class PartsEncoding:
    """Encodes the parts: one open task per worker slot of the mesh, and one more per node."""

    def __init__(self, job: EncodeJob, video: video_cut.SourceVideo, folder: Path) -> None:
        self._job, self._mesh, self._video, self._folder = job, job.mesh, video, folder
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
            cores: dict[str, Any] = {"cores": self._job.settings.threads or 1}
            options: dict[str, Any] = {**self._job.options, "requires": {**cores, **self._job.options["requires"]}}
            return await self._mesh.start(self._job.kind, self._task(blob), **options)
        except BaseException:
            await delete(self._mesh, blob)
            raise

    def _task(self, blob: str) -> dict[str, Any]:
        video = self._video
        part = {
            "time_base": f"{video.time_base.numerator}/{video.time_base.denominator}",
            "rate": f"{video.rate.numerator}/{video.rate.denominator}",
            "picture": video.facts.picture.model_dump(mode="json", exclude_defaults=True),
            "compare": video.pieces is not None,
        }
        whole = {"audio": "drop", "container": "mp4"}
        return {**DEFAULTS, **self._job.payload, **whole, "video": {"blob": blob}, "part": part}

    async def _part(self, cut: CutPart, handle: TaskHandle) -> video_join.Part:
        end = await handle.end()
        number = cut.piece.number
        if fault := video_fault(end):
            raise UndecodablePart(f"has a part {number + 1} that a node can't decode (it {fault})")
        path = self._folder / f"encoded-{number}.mp4"
        await fetch(self._mesh, end, path)
        try:
            part = await asyncio.to_thread(video_join.check, path, self._video, cut, end.info)
        except OtherPictures as fault:
            raise CannotCut(f"has a part {number + 1} whose encoding {fault}") from None
        except MediaFault as fault:
            reason = f"its part {number + 1} {fault}"
            raise TaskFailed(f"task {handle.id}: {reason}", handle.id, "done", reason) from None
        self.progress.nodes.add(end.node)
        self.encoders.add(str(end.info.get("encoder", "")))
        self.size = (int(end.info.get("width", 0)), int(end.info.get("height", 0)))
        return part

    def target(self) -> Target:
        """The settings of the joined video that its facts depend on."""
        settings = self._job.settings
        return Target(
            codec=self._job.codec,
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
        self._job.report(self.progress)
