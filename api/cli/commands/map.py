"""One task a file: each result is written into DIR under the file's own name.

  queztl map image_processing photos/*.jpg --payload '{"width": 320}' --out small

Small files travel inside their task, large ones as blobs. Ctrl-C, a crash or a failure lose nothing that is done:
the same command does only what is missing (new and changed files, and those that failed). Failures are listed at
the end and written to DIR/failures.json.
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
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the outputs go")
    parser.add_argument("--payload", metavar="JSON", default="{}", help="the rest of each payload; or @FILE")
    parser.add_argument("--field", metavar="NAME", help="the field that takes the file [the first that can]")
    parser.add_argument("--window", type=count, default=128, metavar="N", help="tasks open at once [128]")
    add_task_options(parser)


async def run(args: argparse.Namespace, out: Output) -> int:
    """Do what is missing. Raises: UnknownKind, BadInput, BusUnavailable, OSError."""
    import asyncio

    from api.cli.batch.run import Run, Wish
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
                        wish = Wish(kind, field_name, payload, options)
                        job = Run(mesh, journal, args.out, wish, progress.tell, progress.note)
                        await job.run(todo, args.window)
                except asyncio.CancelledError:
                    progress.note(f"{progress.done} of {len(todo)} done; the same command does the rest")
                    raise
        write_failures(args.out, progress.failed)
        return report(out, progress, skipped, monotonic() - began, args.out)
    finally:
        journal.close()


def list_inputs(paths: list[Path]) -> list[str]:
    """The files, absolute, each once, a folder's own in order. Raises: BadInput naming all that are not there."""
    from mesh.errors import BadInput, Fault

    found: dict[str, None] = {}
    faults = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
            found.update(dict.fromkeys(os.path.abspath(one) for one in inside))
        elif path.is_file():
            found[os.path.abspath(path)] = None
        else:
            faults.append(Fault(str(path), "is no file"))
    if faults:
        raise BadInput("not every FILE is there: see each", tuple(faults))
    return list(found)


def plan(
    inputs: list[str], journal: Journal, folder: Path, work: tuple[str, str, dict[str, Any]]
) -> tuple[dict[str, tuple[str, str]], int]:
    """(input -> (key, stem) of those to do, how many are done already). The names are remembered first."""
    there = {one.name for one in folder.iterdir()}
    remembered = journal.remembered
    ours = {output for _, output in remembered.done.values()} | {FAILURES}
    # A second run over `DIR/*` must not take the first one's outputs for inputs.
    home = os.path.abspath(folder)
    wanted = [one for one in inputs if not (os.path.dirname(one) == home and os.path.basename(one) in ours)]
    kind, field_name, payload = work
    keys = {}
    for one in wanted:
        facts = os.stat(one)
        keys[one] = map_journal.key(one, facts.st_size, facts.st_mtime_ns, kind, field_name, payload)
    visible = [name for name in there if not name.startswith(".")]
    stems = allot(wanted, remembered.stems, [*visible, FAILURES])
    journal.name(stems)
    todo = map_journal.missing(keys, remembered, there)
    return {one: (keys[one], stems[one]) for one in todo}, len(wanted) - len(todo)


def write_failures(folder: Path, failed: list[Outcome]) -> None:
    """The failures of this run as a file; no file when there are none."""
    target = folder / FAILURES
    if not failed:
        target.unlink(missing_ok=True)
        return
    draft = target.with_name(f".{FAILURES}.part")
    draft.write_bytes(as_json([document(one, str(folder)) for one in failed]))
    draft.replace(target)


def report(out: Output, progress: Progress, skipped: int, took_s: float, folder: Path) -> int:
    """What came of it; the exit code."""
    failed = progress.failed
    if out.as_json:
        summary = {"done": progress.done, "failed": len(failed), "skipped": skipped, "seconds": round(took_s, 3)}
        out.document({"summary": summary})
    else:
        before = f", {skipped} done before" if skipped else ""
        rate = f" ({progress.done / took_s:.1f}/s)" if progress.done and took_s else ""
        out.line(f"{progress.done} done, {len(failed)} failed{before}, in {duration(took_s)}{rate}")
        for one in failed:
            out.line(f"  {one.input}: {one.error['reason'] if one.error else ''}")
        if failed:
            out.line(f"{folder / FAILURES} has the details; the same command tries them again")
    return TASK_FAILED if failed else OK
