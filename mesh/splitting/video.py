"""Encodes a long video on the mesh: cut at key frames, one task per part, joined into one file.

The client cuts, checks and joins, and requires PyAV (`av`) and NumPy. When a node dies, the mesh runs its task on
another node. With a software encoder, one thread per part (the defaults) and the same encoder version on all nodes, the
parts are byte-identical for any number of nodes. With other settings it is an equally good file: the frames of every
part are counted, and a sample of them is compared with the source before it is joined. A video that is short, or can't
be cut so that its pictures stay the same, is encoded as one task. See docs/video.md.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import BadInput, CannotStart, Fault
from mesh.files import check_output, draft_of
from mesh.kinds.table import validate
from mesh.kinds.video import VideoPayload
from mesh.splitting import video_cut, video_join, video_whole
from mesh.splitting.media import MediaFault
from mesh.splitting.video_job import EncodeJob, EncodeProgress, OnProgress
from mesh.splitting.video_parts import DEFAULTS, PartsEncoding, UndecodablePart
from mesh.splitting.video_plan import CannotCut

if TYPE_CHECKING:
    from mesh.client import Mesh

__all__ = ["CODECS", "PART_S", "EncodeProgress", "checked", "encode"]

CODECS = ("h264", "h265", "av1")
#: Seconds of video in a part: a few seconds of work for a node, at the cost of one additional key frame.
PART_S = 5.0
#: Fields that apply to the whole video, not to a part.
WHOLE = ("video", "part", "seconds", "fps", "quality")


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
    damaged_frames, damaged_sound, kept, converted, dropped (texts: what became of the facts of the source, see
    docs/video.md), parts, nodes (ids),
    seconds, fps, realtime (duration of the video over `seconds`)}; a video that was encoded as one task also has
    `one_task`, the reason.

    Raises: BadInput, also for an unusable file; CannotStart without PyAV; TaskFailed when a task fails permanently or
    returns a wrong part; OSError; as `Mesh.start`.
    """
    settings = checked(codec, payload)
    _require_av()
    check_output(target, force, [source], stream=False)
    options = {
        "requires": requires or {}, "urgency": urgency, "timeout_s": timeout_s, "max_attempts": max_attempts,
        "delay_s": delay_s, "expires_s": expires_s, "origin": origin,
    }  # fmt: skip
    job = EncodeJob(mesh, codec, payload or {}, settings, options, on_progress)
    started = time.perf_counter()
    with _folder_beside(target) as folder, draft_of(target, force) as draft:
        try:
            facts = await _encoded(job, await asyncio.to_thread(video_cut.analyse, source, part_s), folder, draft)
        except MediaFault as fault:
            raise BadInput(f"{source} {fault}.", (Fault("FILE", str(fault)),)) from None
    seconds = time.perf_counter() - started
    output = {"file": str(target), "bytes": target.stat().st_size, "codec": codec, "seconds": round(seconds, 3)}
    speed = {"fps": round(facts["frames"] / seconds, 2), "realtime": round(facts["duration_s"] / seconds, 3)}
    return {**output, **speed, **facts}


async def _encoded(job: EncodeJob, video: video_cut.SourceVideo, folder: Path, draft: Path) -> dict[str, Any]:
    """Encode the video in parts where possible, else as one task; returns the facts.

    Raises: MediaFault, and as `encode`.
    """
    try:
        if video.short:
            raise CannotCut("is too short to cut")
        try:
            return await _in_parts(job, video, folder, draft)
        except UndecodablePart:
            if video.pieces is None:
                raise
            # The packets promised other frames than they have: the frames themselves tell what can be cut.
            return await _in_parts(job, replace(video, pieces=None), folder, draft)
    except CannotCut as reason:
        return await video_whole.encode(job, video, draft, str(reason))


async def _in_parts(job: EncodeJob, video: video_cut.SourceVideo, folder: Path, draft: Path) -> dict[str, Any]:
    """Encode the parts and join them into `draft`; returns the facts. Raises: CannotCut, and as `encode`."""
    encoding = PartsEncoding(job, video, folder)
    try:
        parts = await encoding.run()
    finally:
        await encoding.stop()
    encoding.begin_phase("joining")
    joined = await asyncio.to_thread(video_join.join, video, parts, draft, encoding.target(), encoding.report_joined)
    return {
        **encoding.facts(parts),
        "audio": joined.audio,
        "damaged_frames": 0,
        "damaged_sound": joined.damaged_sound,
        **joined.outcome.as_info(),
    }


@contextmanager
def _folder_beside(target: Path) -> Generator[Path, None, None]:
    """A temporary folder on the disk of `target`."""
    beside = target.resolve().parent
    with tempfile.TemporaryDirectory(prefix=".queztl-encode-", dir=beside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _require_av() -> None:
    """Raises: CannotStart."""
    # NumPy is not imported: a video that is cut from its packets needs it on the nodes only, and it takes 0.1 s.
    if find_spec("av") is None or find_spec("numpy") is None:
        message = "This machine cuts and joins the video, but lacks PyAV or NumPy: pip install 'queztl[video]'."
        raise CannotStart(message)
