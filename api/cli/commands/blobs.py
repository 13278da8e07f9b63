"""Blobs: files by reference. A payload takes the id that `put` prints as {"blob": "b-…"}."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from api.cli.input.arguments import add_force
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.results import save

HELP = "files by reference: put, get, delete"


def add(parser: argparse.ArgumentParser) -> None:
    """`blobs put FILE… | get ID -o FILE | delete ID…`"""
    actions = parser.add_subparsers(dest="action", metavar="put|get|delete", required=True)
    putting = actions.add_parser("put", help="upload files")
    putting.add_argument("files", metavar="FILE", nargs="+", type=Path)
    putting.add_argument("--keep", action="store_true", help="keep them until deleted, not only for a day")
    putting.add_argument("--content-type", metavar="TYPE", help="the content type [guessed from the name]")
    getting = actions.add_parser("get", help="download a file")
    getting.add_argument("id", metavar="ID")
    getting.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the bytes to FILE [stdout, into a pipe]"
    )
    add_force(getting)
    deleting = actions.add_parser("delete", help="delete blobs that no task needs any more")
    deleting.add_argument("ids", metavar="ID", nargs="+")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Upload, download or delete. Raises: NotFound, Conflict, StorageFull, BusUnavailable, BadInput, OSError."""
    return await {"put": _put, "get": _get, "delete": _delete}[args.action](args, out)


async def _delete(args: argparse.Namespace, out: Output) -> int:
    from mesh.client import Mesh

    async with Mesh(args.url) as mesh:
        for blob in args.ids:
            await mesh.delete_blob(blob)
            out.line(f"{blob} deleted")
    if out.as_json:
        out.document({"deleted": args.ids})
    return OK


async def _put(args: argparse.Namespace, out: Output) -> int:
    from mesh import media_types
    from mesh.client import Mesh
    from mesh.errors import BadInput, Fault

    faults = tuple(Fault(str(path), "does not exist") for path in args.files if not path.is_file())
    if faults:
        raise BadInput("some FILEs do not exist", faults)
    done: list[dict[str, Any]] = []
    async with Mesh(args.url) as mesh:
        for path in args.files:
            content_type = args.content_type or media_types.content_type(path.name)
            reference = await mesh.put_blob(path, content_type, keep=args.keep)
            done.append(
                {"file": str(path), "blob": reference.blob, "size": reference.size, "content_type": content_type}
            )
            out.line(f"{reference.blob}  {path}" if len(args.files) > 1 else reference.blob)
    if out.as_json:
        out.document({"blobs": done})
    return OK


async def _get(args: argparse.Namespace, out: Output) -> int:
    from mesh.client import Mesh
    from mesh.errors import BadInput
    from mesh.files import check_output

    if args.output is not None:
        check_output(args.output, args.force)
    if args.output is None and out.as_json:
        raise BadInput("with --json, write the blob to a file: -o FILE")
    async with Mesh(args.url) as mesh:
        reference, source = await mesh.open_blob(args.id)
        out.refuse_terminal(args.output, reference.content_type)
        if args.output is None:
            async for chunk in source:
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return OK
        size = await save(source, args.output, args.force)
    document = {"blob": args.id, "file": str(args.output), "size": size, "content_type": reference.content_type}
    if out.as_json:
        out.document(document)
    else:
        out.note(f"{args.output}: {size} bytes, {reference.content_type}")
    return OK
