"""Submit one task and print its id, or with --wait its result.

queztl submit crypto_mining '{"seconds": 2}' --wait
queztl submit image_processing '{"width": 320}' --file image=photo.jpg --wait -o small.jpg
queztl submit ml_training --wait --files trained
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from api.cli.input.arguments import (
    add_files,
    add_force,
    add_task_options,
    field_and_path,
    json_value,
    seconds,
    task_options,
)
from api.cli.input.task import PLACEHOLDER, check, upload, with_files
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.results import show_end, wait_for_end

HELP = "submit one task"


def add(parser: argparse.ArgumentParser) -> None:
    """`submit KIND [JSON]` and the task's options."""
    parser.add_argument("kind", metavar="KIND", help="see `queztl kinds`")
    parser.add_argument("payload", metavar="JSON", nargs="?", help="the payload; -: stdin, @FILE: a file")
    parser.add_argument(
        "--file",
        type=field_and_path,
        action="append",
        default=[],
        metavar="FIELD=PATH",
        help="upload a file and put its reference into that field of the payload; may be repeated",
    )
    parser.add_argument("--wait", action="store_true", help="wait for the result and print it")
    parser.add_argument("--within", type=seconds, metavar="S", help="with --wait: at most S seconds")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="with --wait: write the result there")
    add_files(parser, "with --wait: ")
    add_force(parser)
    add_task_options(parser)
    parser.add_argument("--key", default="", help="idempotency key: a task with the same key is submitted once")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Submit the task. Raises: UnknownKind, BadInput, Conflict, Busy, BusUnavailable, TaskFailed, WaitTimeout."""
    from mesh.client import Mesh
    from mesh.files import check_output
    from mesh.views import SubmitRequest

    kind = args.kind.lower()
    check_options(args)
    options = task_options(args)
    payload = json_value(args.payload) if args.payload is not None else None
    # Everything that can be wrong is found before anything is uploaded.
    check(kind, with_files(payload, {field: PLACEHOLDER for field, _ in args.file}), options)
    if args.output is not None:
        check_output(args.output, args.force, [path for _, path in args.file])
    async with Mesh(args.url) as mesh:
        payload = with_files(payload, {field: await upload(mesh, path) for field, path in args.file})
        accepted = await mesh.accept(SubmitRequest(kind, payload, idempotency_key=args.key, **options))
        warnings = await mesh.warnings(kind, options["requires"])
        for warning in warnings:
            out.note(f"queztl: {warning}")
        if not args.wait:
            if out.as_json:
                out.document(replace(accepted, warnings=warnings))
            else:
                out.line(accepted.id)
            return OK
        out.note(f"task {accepted.id}; Ctrl-C leaves it running")
        end = await wait_for_end(out, mesh, accepted.id, args.within)
        return await show_end(out, mesh, end, args.output, args.force, args.files)


def check_options(args: argparse.Namespace) -> None:
    """Raises: BadInput that names every option that contradicts another one, and every file that does not exist."""
    from mesh.errors import BadInput, Fault

    faults = []
    if not args.wait:
        faults += [
            Fault(name, "needs --wait")
            for name, value in (("--within", args.within), ("--output", args.output), ("--files", args.files))
            if value is not None
        ]
    missing = [(field, path) for field, path in args.file if not path.is_file()]
    faults += [Fault(f"--file {field}", f"there is no file {path}") for field, path in missing]
    if faults:
        raise BadInput("the options are not valid", tuple(faults))
