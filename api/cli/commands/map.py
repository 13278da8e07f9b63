"""Run one task a file, and write each result into DIR under the name of its file.

  queztl map image_processing photos/*.jpg --payload '{"width": 320}' --out small

Small files travel inside their task, large ones as blobs. After Ctrl-C, a crash or a failure the same command does only
what is missing: new and changed files, and those that failed. Failures are listed at the end and written to
DIR/failures.json. When the outputs can't be written, the run stops, and the same command resumes it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from api.cli.batch import journal as map_journal
from api.cli.batch.inputs import Found, explained, find_inputs
from api.cli.batch.journal import FAILURES, Journal
from api.cli.batch.names import allot, file_field, stem_of
from api.cli.batch.progress import Progress, document
from api.cli.input.arguments import add_task_options, count, json_object, task_options
from api.cli.input.task import PLACEHOLDER, check
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED
from api.cli.output.formatting import duration
from api.cli.output.results import as_json, remove_drafts

if TYPE_CHECKING:
    from api.cli.batch.run import Job, Outcome

HELP = "one task a file, outputs into a folder; resumable"
BY_LINE = True


def add(parser: argparse.ArgumentParser) -> None:
    """`map KIND FILES… --out DIR`"""
    parser.add_argument("kind", metavar="KIND", help="see `queztl kinds`")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="files, or folders of files")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder of the outputs")
    parser.add_argument("--payload", metavar="JSON", default="{}", help="the other fields of each payload; or @FILE")
    parser.add_argument("--field", metavar="NAME", help="the field that takes the file [the first that can]")
    parser.add_argument(
        "--recursive", "-r", action="store_true", help="take the files of subfolders too, and keep the tree in DIR"
    )
    parser.add_argument("--window", type=count, default=128, metavar="N", help="tasks open at once [128]")
    add_task_options(parser)


async def run(args: argparse.Namespace, out: Output) -> int:
    """Process the inputs that have no output yet.

    Raises: UnknownKind; BadInput; BusUnavailable; StorageFull, OSError when it can't go on.
    """
    from api.cli.batch.run import Job
    from mesh.kinds.table import find

    kind = args.kind.lower()
    field_name = file_field(find(kind), args.field)
    payload = json_object(args.payload, "the option payload")
    options = task_options(args)
    check(kind, {**payload, field_name: PLACEHOLDER}, options)
    found = find_inputs(args.files, args.out, args.recursive)
    if left_out := explained(found.left_out):
        out.note(f"queztl: {left_out}")
    args.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.out)
    try:
        todo, skipped = plan(found, journal, args.out, (kind, field_name, payload))
        began = monotonic()
        with Progress(out, len(todo), str(args.out)) as progress:
            if todo:
                await process(args, journal, progress, Job(kind, field_name, payload, options), todo)
        write_failures(args.out, progress.failed)
        return summary(out, progress, (skipped, found), monotonic() - began, args.out)
    finally:
        journal.close()


async def process(
    args: argparse.Namespace, journal: Journal, progress: Progress, job: Job, todo: dict[str, tuple[str, str]]
) -> None:
    """Process the inputs of a plan. Raises: BusUnavailable; StorageFull, OSError when it can't go on."""
    import asyncio

    from api.cli.batch.run import Run, Stopped
    from mesh.client import Mesh

    try:
        async with Mesh(args.url) as mesh:
            for warning in await mesh.warnings(job.kind, job.options["requires"]):
                progress.note(f"queztl: {warning}")
            run = Run(mesh, journal, args.out, job, progress.report, progress.note)
            await run.run(todo, args.window)
    except asyncio.CancelledError:
        progress.note(f"{progress.done} of {len(todo)} done; the same command does the rest")
        raise
    except Stopped as stopped:
        so_far = f"{progress.done} of {len(todo)} done; the same command does the rest"
        cause = stopped.cause
        if progress.failed:
            with contextlib.suppress(OSError):
                write_failures(args.out, progress.failed)
        if isinstance(cause, OSError):
            raise OSError(cause.errno, f"{cause.strerror}; {so_far}", cause.filename) from None
        progress.note(so_far)
        raise cause from None


def plan(
    found: Found, journal: Journal, home: Path, work: tuple[str, str, dict[str, Any]]
) -> tuple[dict[str, tuple[str, str]], int]:
    """(input -> (key, stem) of the inputs to process, how many are done). Names are recorded in the journal first."""
    remembered = journal.remembered
    # A second run over `DIR/*` must not take the first one's outputs for inputs.
    ours = {os.path.abspath(home / output) for output in (*remembered.written, FAILURES)}
    sources = {path: folder for path, folder in found.files.items() if path not in ours}
    folders = {"", *sources.values(), *map(os.path.dirname, remembered.stems.values())}
    there = {name for folder in folders for name in listed(home, folder)}
    keys = {path: map_journal.key(path, *state_of(path), *work) for path in sources}
    # A file that somebody put there under the name of an output that was never written keeps that name.
    foreign = [*(name for name in there if name not in remembered.written), FAILURES]
    taken = {stem_of(name) for name in foreign}
    known = {path: stem for path, stem in remembered.stems.items() if stem not in taken}
    stems = allot(sources, known, [*there, FAILURES])
    journal.name(stems)
    todo = map_journal.missing(keys, remembered, there)
    return {path: (keys[path], stems[path]) for path in todo}, len(sources) - len(todo)


def state_of(path: str) -> tuple[int, int]:
    """(size, modification time) of an input; of one that has just gone a state that no file has, so that it is tried
    and reported."""
    try:
        facts = os.stat(path)
    except OSError:
        return -1, 0
    return facts.st_size, facts.st_mtime_ns


def listed(home: Path, folder: str) -> list[str]:
    """What is in a folder of the output folder, without hidden files, relative to it; drafts of dead processes go."""
    try:
        names = [name for name in os.listdir(home / folder) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    remove_drafts(home / folder)
    return [os.path.join(folder, name) for name in names]


def write_failures(folder: Path, failed: list[Outcome]) -> None:
    """Write the failures of this run; without failures the file is removed."""
    from mesh.files import draft_of

    target = folder / FAILURES
    if not failed:
        target.unlink(missing_ok=True)
        return
    with draft_of(target, force=True) as draft:
        draft.write_bytes(as_json([document(outcome, str(folder)) for outcome in failed]))


def summary(out: Output, progress: Progress, other: tuple[int, Found], took_s: float, folder: Path) -> int:
    """Print what was done and what failed; `other`: how many were done before, and what was found. The exit code."""
    failed, (skipped, found) = progress.failed, other
    if out.as_json:
        counts = {"done": progress.done, "failed": len(failed), "skipped": skipped, "seconds": round(took_s, 3)}
        out.document({"summary": counts | ({"left_out": found.left_out} if found.left_out else {})})
    else:
        before = f", {skipped} done before" if skipped else ""
        before += f", {found.left_out.total()} left out" if found.left_out else ""
        rate = f" ({progress.done / took_s:.1f}/s)" if progress.done and took_s else ""
        out.line(f"{progress.done} done, {len(failed)} failed{before}, in {duration(took_s)}{rate}")
        for outcome in failed:
            out.line(f"  {outcome.input}: {outcome.error['reason'] if outcome.error else ''}")
        if failed:
            out.line(f"{folder / FAILURES} has the details; the same command tries the failed files again")
    return TASK_FAILED if failed else OK
