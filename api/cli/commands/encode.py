"""Encode a long video on every node at once: it is cut at key frames, each part is a task, the parts are joined.

  queztl encode holiday.mov -o holiday.mp4 --codec h265 --preset slow --crf 24

The video is encoded once and the sound copied; they stay in sync. Subtitles, chapters and titles come along. A video
that is short, or can't be cut so that its pictures stay the same, is encoded as one task. This machine cuts and joins,
and needs PyAV: pip install 'queztl[video]'. Ctrl-C cancels the open tasks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from api.cli.input.arguments import add_force, add_task_options, json_object, seconds, task_options
from api.cli.output.console import Output
from api.cli.output.formatting import duration

if TYPE_CHECKING:
    from mesh.splitting.video import EncodeProgress

HELP = "encode a long video on every node at once"
REPORT_EVERY_S = 5.0


def add(parser: argparse.ArgumentParser) -> None:
    """`encode FILE -o OUT` and the options of its tasks."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the video")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="the encoded file: .mp4 or .mkv")
    parser.add_argument("--codec", choices=("h264", "h265", "av1"), default="h264", help="[h264]")
    parser.add_argument("--preset", metavar="NAME", help="ultrafast … veryslow [medium]")
    parser.add_argument("--crf", metavar="N", type=float, help="quality, lower is better [the default of the codec]")
    parser.add_argument("--resolution", metavar="R", help='720p, 1080p, 4K, "1280x720" [that of the file]')
    parser.add_argument("--payload", metavar="JSON", default="{}", help="other fields of the kind's payload; or @FILE")
    parser.add_argument("--part-seconds", metavar="S", type=seconds, default=5.0, help="length of a part, about [5]")
    add_force(parser)
    add_task_options(parser)


async def run(args: argparse.Namespace, out: Output) -> int:
    """Encode, and print the facts of the result. Raises: BadInput, CannotStart, BusUnavailable, TaskFailed, OSError."""
    from api.cli.output.exit_codes import OK
    from mesh.client import Mesh
    from mesh.errors import BadInput
    from mesh.files import check_output
    from mesh.splitting.video import checked, encode

    payload = json_object(args.payload, "the option payload")
    for name in ("preset", "crf", "resolution"):
        if getattr(args, name) is not None:
            payload[name] = getattr(args, name)
    container = args.out.suffix.lower().lstrip(".")
    if container not in ("mp4", "mkv"):
        raise BadInput(f"the name of {args.out} must end in .mp4 or .mkv: it selects the container")
    payload.setdefault("container", container)
    checked(args.codec, payload)
    if not args.file.is_file():
        raise BadInput(f"there is no file {args.file}")
    check_output(args.out, args.force, [args.file], stream=False)
    options = {"part_s": args.part_seconds, "force": args.force, **task_options(args)}
    async with Mesh(args.url) as mesh:
        kind = f"video_encode_{args.codec}"
        for warning in await mesh.warnings(kind, options["requires"]):
            out.note(f"queztl: {warning}")
        with Progress(out) as progress:
            result = await encode(
                mesh, args.file, args.out, args.codec, payload, on_progress=progress.report, **options
            )
    out.document(result)
    return OK


class Progress:
    """The progress: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._bar: Any = None
        self._task: Any = None
        self._began = self._reported_at = monotonic()
        self._noted = False

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._out.as_json and not self._out.quiet:
            self._bar, self._task = _bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, so_far: EncodeProgress) -> None:
        """Show the progress; called after every change."""
        if so_far.one_task and not self._noted:
            self._noted = True
            self._out.note(f"queztl: the video {so_far.one_task}, so it is encoded as one task")
        if self._bar is not None:
            open_now = f"{len(so_far.tasks)} open"
            self._bar.update(self._task, total=so_far.frames, completed=so_far.done, phase=so_far.phase, tasks=open_now)
        elif (now := monotonic()) - self._reported_at >= REPORT_EVERY_S or so_far.phase == "joining":
            self._reported_at = now
            self._out.note(line(so_far, now - self._began))


def line(so_far: EncodeProgress, ran_s: float) -> str:
    """The progress on one line."""
    if so_far.phase == "joining":
        return f"joining {so_far.parts} parts, {so_far.frames} frames"
    rate = so_far.done / ran_s if ran_s else 0.0
    left = f", {duration((so_far.frames - so_far.done) / rate)} left" if rate else ""
    parts = f"{so_far.parts_done} of {so_far.parts} parts"
    return f"{so_far.done} of {so_far.frames} frames, {parts}, {rate:.1f} frames/s{left}"


def _bar() -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.fields[phase]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[tasks]}"),
        console=Console(file=sys.stderr),
    )  # fmt: skip
    return bar, bar.add_task("encode", total=None, phase="reading", tasks="")
