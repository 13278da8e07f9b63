"""Encodes a long video on the mesh: cut at key frames, one task per part, joined into one file.

The client cuts, checks and joins, and requires PyAV (`av`). When a node dies, the mesh runs its task on another node.
With a software encoder, one thread per part (the defaults) and the same encoder version on all nodes, the result is
byte-identical for any number of nodes. With other settings it is an equally good file: every part is decoded and its
frames are counted before it is joined.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import BadInput, Busy, CannotStart, Fault, QueztlError, TaskFailed
from mesh.files import check_output, draft_of
from mesh.kinds.table import validate
from mesh.kinds.video import VideoPayload
from mesh.splitting import video_cut, video_join
from mesh.splitting.media import MediaFault
from mesh.splitting.media_formats import SOFTWARE
from mesh.splitting.media_plan import Target
from mesh.splitting.video_plan import Piece

if TYPE_CHECKING:
    from mesh.client import Mesh, TaskHandle
    from mesh.messages import TaskEnd

CODECS = ("h264", "h265", "av1")
#: Seconds of video in a part: a few seconds of work for a node, at the cost of one additional key frame.
PART_S = 5.0
#: Fields that apply to the whole video, not to a part.
WHOLE = ("video", "part", "seconds", "fps", "quality")
DEFAULTS = {"encoder": "software", "threads": 1}


@dataclass
class EncodeProgress:
    """The progress of an encoding. All frames are those of the result."""

    frames: int
    parts: int
    phase: str = "reading"
    """reading, encoding or joining"""
    done: int = 0
    """Frames encoded and checked; while joining, frames joined."""
    parts_done: int = 0
    nodes: set[str] = field(default_factory=set)
    tasks: list[str] = field(default_factory=list)
    """Ids of the open tasks."""


OnProgress = Callable[[EncodeProgress], None]


def checked(codec: str, payload: dict[str, Any] | None) -> VideoPayload:
    """The validated payload of each part. Raises: BadInput."""
    if codec not in CODECS:
        raise BadInput(f"There is no codec {codec[:32]!r}; the codecs are {', '.join(CODECS)}.")
    fields = {**DEFAULTS, **(payload or {})}
    faults = tuple(
        Fault(f"payload.{name}", "must be left out: it applies to the whole video, which is encoded in parts")
        for name in WHOLE
        if name in fields
    )
    if faults:
        raise BadInput("The video can't be encoded in parts with these fields.", faults)
    validated = validate(f"video_encode_{codec}", fields)
    assert isinstance(validated, VideoPayload)
    return validated


async def encode(
    mesh: Mesh,
    source: Path,
    target: Path,
    codec: str = "h264",
    payload: dict[str, Any] | None = None,
    *,
    part_s: float = PART_S,
    force: bool = False,
    on_progress: OnProgress | None = None,
    requires: dict[str, Any] | None = None,
    urgency: str = "normal",
    timeout_s: float = 0.0,
    max_attempts: int | None = None,
    delay_s: float = 0.0,
    expires_s: float = 0.0,
    origin: str = "",
) -> dict[str, Any]:
    """Encode the file `source` into `target` on all nodes of the mesh, in parts of about `part_s` seconds.

    `force`: replace `target` if it exists; never if it is `source`. `codec`: h264, h265 or av1; `payload`: fields of
    video_encode_<codec>, without `video`. `on_progress` is called after every change. The other options apply to each
    task, see `mesh.client.Mesh`; by default `requires` asks for as many cores as the payload has `threads`.
    Returns {file, bytes, codec, encoder, frames, duration_s, width, height, bit_rate (of the video, bits/s), audio,
    kept, converted, dropped (texts: what became of the facts of the source, see docs/video.md), parts, nodes (ids),
    seconds, fps, realtime (duration of the video over `seconds`)}.

    Raises: BadInput, also for an unusable file; CannotStart without PyAV; TaskFailed when a task fails permanently or
    returns a wrong part; OSError; as `Mesh.start`.
    """
    settings = checked(codec, payload)
    _require_av()
    fields = {**DEFAULTS, **(payload or {}), "audio": "drop", "container": "mp4"}
    options = {
        "requires": {"cores": settings.threads or 1, **(requires or {})}, "urgency": urgency, "timeout_s": timeout_s,
        "max_attempts": max_attempts, "delay_s": delay_s, "expires_s": expires_s, "origin": origin,
    }  # fmt: skip
    check_output(target, force, [source], stream=False)
    started = time.perf_counter()
    with _folder_beside(target) as folder, draft_of(target, force) as draft:
        try:
            video = await asyncio.to_thread(video_cut.analyse, source, part_s)
            job = _Encoding(mesh, f"video_encode_{codec}", fields, options, video, folder, on_progress)
            try:
                parts = await job.run()
            finally:
                await job.stop()
            job.begin_phase("joining")
            result = job.target(codec, settings)
            joined = await asyncio.to_thread(video_join.join, video, parts, draft, result, job.report_joined)
        except MediaFault as fault:
            raise BadInput(f"{source} {fault}.", (Fault("FILE", str(fault)),)) from None
    output = {"file": str(target), "bytes": target.stat().st_size, "codec": codec, "audio": joined.audio}
    return {**output, **joined.outcome.as_info(), **_speed(video, time.perf_counter() - started), **job.facts(parts)}


@contextmanager
def _folder_beside(target: Path) -> Generator[Path, None, None]:
    """A temporary folder on the disk of `target`."""
    beside = target.resolve().parent
    with tempfile.TemporaryDirectory(prefix=".queztl-encode-", dir=beside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _speed(video: video_cut.SourceVideo, seconds: float) -> dict[str, float]:
    return {
        "seconds": round(seconds, 3),
        "fps": round(video.frames / seconds, 2),
        "realtime": round(video.seconds / seconds, 3),
    }


def _require_av() -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        message = "This machine cuts and joins the video, but lacks PyAV: pip install 'queztl[video]'."
        raise CannotStart(message) from None


class _Encoding:
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
        self.progress = EncodeProgress(video.frames, len(video.pieces))
        self.encoders: set[str] = set()
        self.size = (0, 0)
        self._parts: dict[int, video_join.Part] = {}
        self._open: dict[asyncio.Task[video_join.Part], tuple[int, str, TaskHandle]] = {}
        self._cut = video_cut.cut(video, folder)
        self._ready: tuple[Piece, Path, int] | None = None
        """The part that is cut but not submitted yet."""
        self._next = 0

    async def run(self) -> list[video_join.Part]:
        """Run until every part is done; returns the parts in order."""
        self.begin_phase("encoding")
        while len(self._parts) < len(self._video.pieces):
            await self._fill()
            done, _ = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number, blob, _ = self._open[task]
                part = task.result()
                del self._open[task]
                self._parts[number] = part
                self.progress.done += len(part.times)
                self.progress.parts_done += 1
                await self._delete(blob)
            self._report()
        return [self._parts[number] for number in range(len(self._video.pieces))]

    async def stop(self) -> None:
        """Cancel the open tasks, here and on the nodes, and delete their uploads."""
        waiting = dict(self._open)
        self._open.clear()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*(handle.cancel() for _, _, handle in waiting.values()), return_exceptions=True)
        await asyncio.gather(*(self._delete(blob) for _, blob, _ in waiting.values()))
        with suppress(ValueError):  # the generator is running in a thread, which ends by itself
            self._cut.close()

    async def _fill(self) -> None:
        nodes = [node for node in await self._mesh.nodes() if node.state == "up"]
        limit = sum(node.slots + 1 for node in nodes) or 1
        while len(self._open) < limit and self._next < len(self._video.pieces):
            if self._ready is None:
                self._ready = await asyncio.to_thread(next, self._cut)
            piece, path, zero = self._ready
            try:
                blob = (await self._mesh.put_blob(path, "video/x-nut")).blob
                handle = await self._start(piece, blob, zero)
            except Busy as busy:  # a full queue, or no bus: the task was not accepted, so a retry repeats nothing
                if not self._open:
                    await asyncio.sleep(busy.retry_after_s)
                    continue
                return
            self._ready = None
            path.unlink()
            waiting = asyncio.create_task(self._part(self._next, piece, handle), name=f"part {self._next}")
            self._open[waiting] = self._next, blob, handle
            self._next += 1
            self._report()

    async def _start(self, piece: Piece, blob: str, zero: int) -> TaskHandle:
        try:
            return await self._mesh.start(self._kind, self._task(piece, blob, zero), **self._options)
        except BaseException:
            await self._delete(blob)
            raise

    def _task(self, piece: Piece, blob: str, zero: int) -> dict[str, Any]:
        video = self._video
        part = {
            "first": piece.first - zero,
            "end": piece.end - zero,
            "time_base": f"{video.time_base.numerator}/{video.time_base.denominator}",
            "rate": f"{video.rate.numerator}/{video.rate.denominator}",
            "picture": video.facts.picture.model_dump(mode="json", exclude_defaults=True),
        }
        return {**self._payload, "video": {"blob": blob}, "part": part}

    async def _part(self, number: int, piece: Piece, handle: TaskHandle) -> video_join.Part:
        end = await handle.end()
        path = self._folder / f"encoded-{number}.mp4"
        await self._fetch(end, path)
        try:
            part = await asyncio.to_thread(video_join.check, path, self._video, piece)
        except MediaFault as fault:
            reason = f"its part {number + 1} {fault}"
            raise TaskFailed(f"task {handle.id}: {reason}", handle.id, "done", reason) from None
        self.progress.nodes.add(end.node)
        info = end.info or {}
        self.encoders.add(str(info.get("encoder", "")))
        self.size = (int(info.get("width", 0)), int(info.get("height", 0)))
        return part

    async def _fetch(self, end: TaskEnd, path: Path) -> None:
        if end.state == "done" and end.result_ref is not None:
            await self._mesh.bus.objects.fetch(end.result_ref.blob, path)
            await self._delete(end.result_ref.blob)
            return
        value = await self._mesh.value(end)
        path.write_bytes(value if isinstance(value, bytes) else b"")

    async def _delete(self, blob: str) -> None:
        with suppress(QueztlError):  # the mesh deletes it after a while
            await self._mesh.bus.objects.delete(blob)

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
        video = self._video
        return {
            "encoder": ", ".join(sorted(self.encoders)),
            "frames": video.frames,
            "duration_s": round(video.seconds, 6),
            "width": self.size[0],
            "height": self.size[1],
            "bit_rate": round(sum(part.bytes for part in parts) * 8 / video.seconds),
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
