"""Encodes a long video on the mesh: cut at key frames, one task per part, joined into one file.

The client cuts, checks and joins, and requires PyAV (`av`) and NumPy. When a node dies, the mesh runs its task on
another node. With a software encoder, one thread per part (the defaults) and the same encoder version on all nodes, the
result is byte-identical for any number of nodes. With other settings it is an equally good file: every part is decoded,
its frames are counted, and a sample of them is compared with the source before it is joined. A video that can't be cut
so that its pictures stay the same is encoded as one task. See docs/video.md.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import BadInput, CannotStart, Fault
from mesh.files import check_output, draft_of
from mesh.kinds.table import validate
from mesh.kinds.video import VideoPayload
from mesh.splitting import video_cut, video_join, video_whole
from mesh.splitting.media import MediaFault
from mesh.splitting.video_parts import EncodeProgress, OnProgress, PartsEncoding
from mesh.splitting.video_plan import CannotCut

if TYPE_CHECKING:
    from mesh.client import Mesh

__all__ = ["CODECS", "PART_S", "EncodeProgress", "checked", "encode"]

CODECS = ("h264", "h265", "av1")
#: Seconds of video in a part: a few seconds of work for a node, at the cost of one additional key frame.
PART_S = 5.0
#: Fields that apply to the whole video, not to a part.
WHOLE = ("video", "part", "seconds", "fps", "quality")
DEFAULTS = {"encoder": "software", "threads": 1}


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
    started = time.perf_counter()
    kind = f"video_encode_{codec}"
    with _folder_beside(target) as folder, draft_of(target, force) as draft:
        try:
            video = await asyncio.to_thread(video_cut.analyse, source, part_s)
            try:
                facts = await _in_parts(mesh, kind, video, payload or {}, settings, options, folder, draft, on_progress)
            except CannotCut as reason:
                facts = await video_whole.encode(
                    mesh, kind, video, payload or {}, settings, options, draft, str(reason), on_progress
                )
        except MediaFault as fault:
            raise BadInput(f"{source} {fault}.", (Fault("FILE", str(fault)),)) from None
    seconds = time.perf_counter() - started
    output = {"file": str(target), "bytes": target.stat().st_size, "codec": codec, "seconds": round(seconds, 3)}
    speed = {"fps": round(facts["frames"] / seconds, 2), "realtime": round(facts["duration_s"] / seconds, 3)}
    return {**output, **speed, **facts}


async def _in_parts(
    mesh: Mesh,
    kind: str,
    video: video_cut.SourceVideo,
    payload: dict[str, Any],
    settings: VideoPayload,
    options: dict[str, Any],
    folder: Path,
    draft: Path,
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    """Encode the parts and join them into `draft`; returns the facts. Raises: CannotCut, and as `encode`."""
    fields = {**DEFAULTS, **payload, "audio": "drop", "container": "mp4"}
    options = {**options, "requires": {"cores": settings.threads or 1, **options["requires"]}}
    job = PartsEncoding(mesh, kind, fields, options, video, folder, on_progress)
    try:
        parts = await job.run()
    finally:
        await job.stop()
    job.begin_phase("joining")
    result = job.target(kind.rpartition("_")[2], settings)
    joined = await asyncio.to_thread(video_join.join, video, parts, draft, result, job.report_joined)
    return {
        **job.facts(parts),
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
    try:
        import av  # noqa: F401
        import numpy as np  # noqa: F401
    except ImportError:
        message = "This machine cuts and joins the video, but lacks PyAV or NumPy: pip install 'queztl[video]'."
        raise CannotStart(message) from None
