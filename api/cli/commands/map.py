"""Run one task a file, and write each result into DIR under the name of its file.

  queztl map image_processing photos/*.jpg --payload '{"width": 320}' --out small

Small files travel inside their task, large ones as blobs. After Ctrl-C, a crash or a failure the same command does only
what is missing: new and changed files, and those that failed. Failures are listed at the end and written to
DIR/failures.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from api.cli.batch import journal as map_journal
from api.cli.batch.journal import FAILURES, Journal
from api.cli.batch.names import allot, file_field
from api.cli.batch.progress import Progress, document
from api.cli.input.arguments import add_task_options, count, json_object, task_options
from api.cli.input.task import PLACEHOLDER, check
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED
from api.cli.output.formatting import duration
from api.cli.output.results import as_json, remove_drafts

if TYPE_CHECKING:
    from api.cli.batch.run import Outcome

HELP = "one task a file, outputs into a folder; resumable"
BY_LINE = True


def add(parser: argparse.ArgumentParser) -> None:
    """`map KIND FILES… --out DIR`"""
    parser.add_argument("kind", metavar="KIND", help="see `queztl kinds`")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="files, or folders of files")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder of the outputs")
    parser.add_argument("--payload", metavar="JSON", default="{}", help="the other fields of each payload; or @FILE")
    parser.add_argument("--field", metavar="NAME", help="the field that takes the file [the first that can]")
    parser.add_argument("--window", type=count, default=128, metavar="N", help="tasks open at once [128]")
    add_task_options(parser)


async def run(args: argparse.Namespace, out: Output) -> int:
    """Process the inputs that have no output yet. Raises: UnknownKind, BadInput, BusUnavailable, OSError."""
    import asyncio

    from api.cli.batch.run import Job, Run
    from mesh.client import Mesh
    from mesh.kinds.table import find

    kind = args.kind.lower()
    field_name = file_field(find(kind), args.field)
    payload = json_object(args.payload, "the option payload")
    options = task_options(args)
    check(kind, {**payload, field_name: PLACEHOLDER}, options)
    inputs = list_inputs(args.files)
    args.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.out)
    try:
        remove_drafts(args.out)
        todo, skipped = plan(inputs, journal, args.out, (kind, field_name, payload))
        began = monotonic()
        with Progress(out, len(todo), str(args.out)) as progress:
            if todo:
                try:
                    async with Mesh(args.url) as mesh:
                        for warning in await mesh.warnings(kind, options["requires"]):
                            progress.note(f"queztl: {warning}")
                        job = Job(kind, field_name, payload, options)
                        work = Run(mesh, journal, args.out, job, progress.report, progress.note)
                        await work.run(todo, args.window)
                except asyncio.CancelledError:
                    progress.note(f"{progress.done} of {len(todo)} done; the same command does the rest")
                    raise
        write_failures(args.out, progress.failed)
        return summary(out, progress, skipped, monotonic() - began, args.out)
    finally:
        journal.close()


def list_inputs(paths: list[Path]) -> list[str]:
    """The files, absolute, each once; those of a folder in order. Raises: BadInput that names all missing files."""
    from mesh.errors import BadInput, Fault

    found: dict[str, None] = {}
    faults = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
            found.update(dict.fromkeys(os.path.abspath(file) for file in inside))
        elif path.is_file():
            found[os.path.abspath(path)] = None
        else:
            faults.append(Fault(str(path), "does not exist"))
    if faults:
        raise BadInput("some FILEs do not exist", tuple(faults))
    return list(found)


def plan(
    inputs: list[str], journal: Journal, folder: Path, work: tuple[str, str, dict[str, Any]]
) -> tuple[dict[str, tuple[str, str]], int]:
    """(input -> (key, stem) of the inputs to process, how many are done). Names are recorded in the journal first."""
    there = {file.name for file in folder.iterdir()}
    remembered = journal.remembered
    ours = {output for _, output in remembered.done.values()} | {FAILURES}
    # A second run over `DIR/*` must not take the first one's outputs for inputs.
    home = os.path.abspath(folder)
    sources = [path for path in inputs if not (os.path.dirname(path) == home and os.path.basename(path) in ours)]
    kind, field_name, payload = work
    keys = {}
    for path in sources:
        facts = os.stat(path)
        keys[path] = map_journal.key(path, facts.st_size, facts.st_mtime_ns, kind, field_name, payload)
    visible = [name for name in there if not name.startswith(".")]
    stems = allot(sources, remembered.stems, [*visible, FAILURES])
    journal.name(stems)
    todo = map_journal.missing(keys, remembered, there)
    return {path: (keys[path], stems[path]) for path in todo}, len(sources) - len(todo)


def write_failures(folder: Path, failed: list[Outcome]) -> None:
    """Write the failures of this run; without failures the file is removed."""
    target = folder / FAILURES
    if not failed:
        target.unlink(missing_ok=True)
        return
    draft = target.with_name(f".{FAILURES}.part")
    draft.write_bytes(as_json([document(outcome, str(folder)) for outcome in failed]))
    draft.replace(target)


def summary(out: Output, progress: Progress, skipped: int, took_s: float, folder: Path) -> int:
    """Print what was done and what failed; returns the exit code."""
    failed = progress.failed
    if out.as_json:
        counts = {"done": progress.done, "failed": len(failed), "skipped": skipped, "seconds": round(took_s, 3)}
        out.document({"summary": counts})
    else:
        before = f", {skipped} done before" if skipped else ""
        rate = f" ({progress.done / took_s:.1f}/s)" if progress.done and took_s else ""
        out.line(f"{progress.done} done, {len(failed)} failed{before}, in {duration(took_s)}{rate}")
        for outcome in failed:
            out.line(f"  {outcome.input}: {outcome.error['reason'] if outcome.error else ''}")
        if failed:
            out.line(f"{folder / FAILURES} has the details; the same command tries the failed files again")
    return TASK_FAILED if failed else OK
