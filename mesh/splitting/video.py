"""A long video encoded by the whole mesh: cut at key frames, a task a part, joined into one file.

Cutting, checking and joining happen on this machine, which needs `av`; a node that dies takes nothing with it. With
the encoder in software, one thread a part (as is when nothing else is asked) and one version of the encoder on all
nodes the result is the same bytes, however many nodes took part; with anything else it is an equally good file whose
every part was decoded and counted before it was joined. Subtitles and chapters are left out.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import BadInput, Busy, CannotStart, Fault, QueztlError, TaskFailed
from mesh.kinds.table import validate
from mesh.kinds.video import VideoPayload
from mesh.splitting import video_cut, video_join
from mesh.splitting.media import MediaFault
from mesh.splitting.video_plan import Piece

if TYPE_CHECKING:
    from mesh.client import Mesh, TaskHandle
    from mesh.messages import TaskEnd

CODECS = ("h264", "h265", "av1")
#: Seconds of video in a part: some seconds of work for a node, and a key frame more that hardly costs bits.
PART_S = 5.0
#: Fields that mean the whole video, and not each part of it.
WHOLE = ("video", "part", "seconds", "fps", "quality")
DEFAULTS = {"encoder": "software", "threads": 1}


@dataclass
class Encoded:
    """How far it is; frames of the result."""

    frames: int
    parts: int
    phase: str = "reading"
    """reading, encoding, joining"""
    done: int = 0
    """Frames encoded and checked, then frames joined."""
    parts_done: int = 0
    nodes: set[str] = field(default_factory=set)
    tasks: list[str] = field(default_factory=list)
    """Ids of the open tasks."""


OnProgress = Callable[[Encoded], None]


def checked(codec: str, payload: dict[str, Any] | None) -> VideoPayload:
    """What each part is asked for. Raises: BadInput."""
    if codec not in CODECS:
        raise BadInput(f"There is no codec {codec[:32]!r}; there are {', '.join(CODECS)}.")
    given = {**DEFAULTS, **(payload or {})}
    wrong = tuple(
        Fault(f"payload.{name}", "must be left out: it means the whole video, and this encodes parts of it")
        for name in WHOLE
        if name in given
    )
    if wrong:
        raise BadInput("The video can't be encoded in parts like that: see each fault.", wrong)
    made = validate(f"video_encode_{codec}", given)
    assert isinstance(made, VideoPayload)
    return made


async def encode(
    mesh: Mesh,
    source: Path,
    target: Path,
    codec: str = "h264",
    payload: dict[str, Any] | None = None,
    *,
    part_s: float = PART_S,
    on_progress: OnProgress | None = None,
    requires: dict[str, Any] | None = None,
    urgency: str = "normal",
    timeout_s: float = 0.0,
    max_attempts: int = 0,
    delay_s: float = 0.0,
    expires_s: float = 0.0,
    origin: str = "",
) -> dict[str, Any]:
    """Encode the file `source` into `target` on every node of the mesh, in parts of about `part_s` seconds.

    `codec`: h264, h265 or av1; `payload`: fields of video_encode_<codec>, without `video`. `on_progress` is called
    after every change. The other options apply to each task, see `mesh.client.Mesh`; `requires` defaults to the
    `threads` of the payload as cores.
    Returns {file, bytes, codec, encoder, frames, duration_s, width, height, bit_rate (of the video, bits a second),
    audio, parts, nodes (ids), seconds, fps, realtime (seconds of video encoded a second)}.

    Raises: BadInput (the file too); CannotStart without `av`; TaskFailed when a task failed for good or its part is
    not what it should be; OSError; as `Mesh.start`.
    """
    wanted = checked(codec, payload)
    _require_av()
    given = {**DEFAULTS, **(payload or {}), "audio": "drop", "container": "mp4"}
    options = {
        "requires": {"cores": wanted.threads or 1, **(requires or {})}, "urgency": urgency, "timeout_s": timeout_s,
        "max_attempts": max_attempts, "delay_s": delay_s, "expires_s": expires_s, "origin": origin,
    }  # fmt: skip
    began = time.perf_counter()
    beside = target.resolve().parent
    with tempfile.TemporaryDirectory(prefix=".queztl-encode-", dir=beside, ignore_cleanup_errors=True) as folder:
        try:
            film = await asyncio.to_thread(video_cut.look, source, part_s)
            work = _Work(mesh, f"video_encode_{codec}", given, options, film, Path(folder), on_progress)
            try:
                parts = await work.run()
            finally:
                await work.stop()
            draft = Path(folder) / f"joined.{wanted.container}"
            work.phase("joining")
            keep = wanted.audio == "keep"
            audio = await asyncio.to_thread(
                video_join.join, film, parts, draft, wanted.container, keep, work.tell_joined
            )
        except MediaFault as fault:
            raise BadInput(f"{source} {fault}.", (Fault("FILE", str(fault)),)) from None
        draft.replace(target)
    made = {"file": str(target), "bytes": target.stat().st_size, "codec": codec, "audio": audio}
    return {**made, **_speed(film, time.perf_counter() - began), **work.facts(parts)}


def _speed(film: video_cut.Film, seconds: float) -> dict[str, float]:
    return {
        "seconds": round(seconds, 3),
        "fps": round(film.frames / seconds, 2),
        "realtime": round(film.seconds / seconds, 3),
    }


def _require_av() -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        lacks = "Videos are cut and joined on this machine, which lacks PyAV: pip install 'queztl[video]'."
        raise CannotStart(lacks) from None


class _Work:
    """The parts on their way: as many are open as the mesh has room for, and one more for each node."""

    def __init__(
        self,
        mesh: Mesh,
        kind: str,
        payload: dict[str, Any],
        options: dict[str, Any],
        film: video_cut.Film,
        folder: Path,
        on_progress: OnProgress | None,
    ) -> None:
        self._mesh, self._kind, self._payload, self._options = mesh, kind, payload, options
        self._film, self._folder, self._on_progress = film, folder, on_progress
        self.encoded = Encoded(film.frames, len(film.pieces))
        self.encoders: set[str] = set()
        self.size = (0, 0)
        self._parts: dict[int, video_join.Part] = {}
        self._open: dict[asyncio.Task[video_join.Part], tuple[int, str, TaskHandle]] = {}
        self._cut = video_cut.cut(film, folder)
        self._ready: tuple[Piece, Path, int] | None = None
        """Cut, and not submitted yet."""
        self._next = 0

    async def run(self) -> list[video_join.Part]:
        """Until every part is done; in order."""
        self.phase("encoding")
        while len(self._parts) < len(self._film.pieces):
            await self._fill()
            done, _ = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number, blob, _ = self._open[task]
                part = task.result()
                del self._open[task]
                self._parts[number] = part
                self.encoded.done += len(part.times)
                self.encoded.parts_done += 1
                await self._forget(blob)
            self._report()
        return [self._parts[number] for number in range(len(self._film.pieces))]

    async def stop(self) -> None:
        """End what is still open, here and on the nodes, and the uploads with it."""
        waiting, self._open = self._open, {}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*(handle.cancel() for _, _, handle in waiting.values()), return_exceptions=True)
        await asyncio.gather(*(self._forget(blob) for _, blob, _ in waiting.values()))
        with suppress(ValueError):  # it is just being asked for a part, in a thread that then ends by itself
            self._cut.close()

    async def _fill(self) -> None:
        nodes = [one for one in await self._mesh.nodes() if one.state == "up"]
        room = sum(one.slots + 1 for one in nodes) or 1
        while len(self._open) < room and self._next < len(self._film.pieces):
            if self._ready is None:
                self._ready = await asyncio.to_thread(next, self._cut)
            piece, path, zero = self._ready
            try:
                blob = (await self._mesh.put_blob(path, "video/x-nut")).blob
                handle = await self._start(piece, blob, zero)
            except Busy as busy:  # a full queue, or no bus: nothing was accepted, so nothing is repeated
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
            await self._forget(blob)
            raise

    def _task(self, piece: Piece, blob: str, zero: int) -> dict[str, Any]:
        film = self._film
        part = {
            "first": piece.first - zero,
            "end": piece.end - zero,
            "time_base": f"{film.time_base.numerator}/{film.time_base.denominator}",
            "rate": f"{film.rate.numerator}/{film.rate.denominator}",
            "rotation": film.rotation,
            "colour": list(film.colour),
        }
        return {**self._payload, "video": {"blob": blob}, "part": part}

    async def _part(self, number: int, piece: Piece, handle: TaskHandle) -> video_join.Part:
        end = await handle.end()
        path = self._folder / f"encoded-{number}.mp4"
        await self._fetch(end, path)
        try:
            part = await asyncio.to_thread(video_join.check, path, self._film, piece)
        except MediaFault as fault:
            reason = f"its part {number + 1} {fault}"
            raise TaskFailed(f"task {handle.id}: {reason}", handle.id, "done", reason) from None
        self.encoded.nodes.add(end.node)
        info = end.info or {}
        self.encoders.add(str(info.get("encoder", "")))
        self.size = (int(info.get("width", 0)), int(info.get("height", 0)))
        return part

    async def _fetch(self, end: TaskEnd, path: Path) -> None:
        if end.state == "done" and end.result_ref is not None:
            await self._mesh.bus.objects.fetch(end.result_ref.blob, path)
            await self._forget(end.result_ref.blob)
            return
        value = await self._mesh.value(end)
        path.write_bytes(value if isinstance(value, bytes) else b"")

    async def _forget(self, blob: str) -> None:
        with suppress(QueztlError):  # it goes by itself after a while
            await self._mesh.bus.objects.delete(blob)

    def facts(self, parts: list[video_join.Part]) -> dict[str, Any]:
        """For the result."""
        film = self._film
        return {
            "encoder": ", ".join(sorted(self.encoders)),
            "frames": film.frames,
            "duration_s": round(film.seconds, 6),
            "width": self.size[0],
            "height": self.size[1],
            "bit_rate": round(sum(part.bytes for part in parts) * 8 / film.seconds),
            "parts": len(parts),
            "nodes": sorted(self.encoded.nodes),
        }

    def phase(self, name: str) -> None:
        """Another part of the work begins."""
        self.encoded.phase, self.encoded.done = name, 0
        self._report()

    def tell_joined(self, frames: int) -> None:
        """While the parts are joined; from another thread."""
        self.encoded.done = frames

    def _report(self) -> None:
        self.encoded.tasks = [handle.id for _, _, handle in self._open.values()]
        if self._on_progress is not None:
            self._on_progress(self.encoded)
