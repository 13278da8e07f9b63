"""Printing a result, or writing it to a file as a whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.output.exit_codes import OK
from api.cli.output.formatting import json_bytes

if TYPE_CHECKING:
    from api.cli.output.console import Output
    from mesh.client import Mesh
    from mesh.messages import TaskEnd
    from mesh.views import TaskView

#: When to look what a task waits for, seconds: first, and then again and again.
FIRST_LOOK_S, LOOK_S = 1.0, 5.0
#: The name of a file of a result. It comes from another machine: it must not lead out of a folder.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


async def chunks(mesh: Mesh, end: TaskEnd) -> AsyncIterator[bytes]:
    """The bytes of a result; a plain value as JSON. Raises: TaskFailed, NotFound."""
    if end.state == "done" and end.content_type and end.result_ref is not None:
        async for chunk in await mesh.bus.objects.open(end.result_ref.blob):
            yield chunk
        return
    value = await mesh.value(end)
    yield value if end.content_type and isinstance(value, bytes) else as_json(value)


def as_json(value: Any) -> bytes:
    """A plain value as a JSON file."""
    import msgspec

    return msgspec.json.format(json_bytes(value), indent=2) + b"\n"


async def save(source: AsyncIterator[bytes], target: Path, force: bool = True) -> int:
    """Write the bytes of `source` to `target`; returns their number.

    Raises: OSError, what `source` raises; BadInput when `target` exists, without `force`.
    """
    from mesh.files import draft_of

    size = 0
    with draft_of(target, force) as draft, draft.open("wb") as file:
        async for chunk in source:
            size += file.write(chunk)
    return size


def remove_drafts(folder: Path) -> None:
    """Remove the drafts in `folder` of processes that were killed during `save`."""
    for draft in folder.glob(".*.part"):
        pid = draft.name.split(".")[-2]
        if pid.isdigit() and not _runs(int(pid)):
            draft.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # a process of another user
    return True


async def wait_for_end(out: Output, mesh: Mesh, task: str, within_s: float | None) -> TaskEnd:
    """Wait for the end of a task; while it waits for a node, a note says what for, again whenever that changes.

    Raises: WaitTimeout, BusUnavailable.
    """
    import asyncio

    from mesh.errors import QueztlError

    ending = asyncio.ensure_future(mesh.wait(task, within_s))
    look_s, said = FIRST_LOOK_S, ""
    try:
        while True:
            await asyncio.wait({ending}, timeout=look_s)
            if ending.done():
                return ending.result()
            look_s = LOOK_S
            try:
                found = waiting(await mesh.status(task))
            except QueztlError:
                continue  # the wait itself reports a bus that stays away
            if found and found != said:
                out.note(f"task {task} waits: {found}")
            said = found
    finally:
        ending.cancel()


def waiting(view: TaskView) -> str:
    """What a queued task waits for, on one line; "" for nothing that is known. Pure."""
    if view.state != "queued" or not view.waiting_for:
        return ""
    never = "" if view.waiting_helps else "; no node now in the mesh can ever run it"
    return "; ".join(view.waiting_for) + never


def changes(info: dict[str, Any]) -> list[str]:
    """What became of the facts of the input that are not in the result as they were, a line each. Pure."""
    return [
        f"{fate}: {text}"
        for fate in ("converted", "dropped")
        if isinstance(texts := info.get(fate), list)
        for text in texts
        if isinstance(text, str)
    ]


def files_of(value: Any) -> dict[str, str]:
    """name -> blob id of the files that belong to a result. Names that are no plain file names are left out. Pure."""
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict):
        return {}
    named = {name: file.get("blob") for name, file in files.items() if isinstance(file, dict)}
    return {name: blob for name, blob in named.items() if isinstance(blob, str) and _FILE_NAME.fullmatch(str(name))}


async def save_files(out: Output, mesh: Mesh, end: TaskEnd, folder: Path, force: bool) -> None:
    """Write the files of a result into `folder`.

    Raises: NotFound, OSError; BadInput when there are none, or one exists, without `force`.
    """
    from mesh.errors import BadInput
    from mesh.files import check_output

    files = files_of(await mesh.value(end)) if not end.content_type else {}
    if not files:
        raise BadInput(f"task {end.id} has no files beside its result: leave out --files")
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        check_output(folder / name, force)
    for name, blob in files.items():
        size = await save(await mesh.bus.objects.open(blob), folder / name, force)
        out.note(f"{folder / name}: {size} bytes")


async def show_end(
    out: Output, mesh: Mesh, end: TaskEnd, target: Path | None, force: bool = False, folder: Path | None = None
) -> int:
    """Print the result of a task that has ended, or write it to `target`, and its files into `folder`.

    `force`: even if such a file exists. Raises: TaskFailed, NotFound, OSError; BadInput when bytes would go to a
    terminal, or `folder` is given and there are no files.
    """
    code = await _show(out, mesh, end, target, force)
    if folder is not None:
        await save_files(out, mesh, end, folder, force)
    return code


async def _show(out: Output, mesh: Mesh, end: TaskEnd, target: Path | None, force: bool) -> int:
    """Print the result of a task that has ended, or write it to `target`; `force`: even if it exists.

    Raises: TaskFailed, NotFound, OSError; BadInput when bytes would go to a terminal.
    """
    import sys

    from mesh.tasks import status

    if end.state != "done":
        await mesh.value(end)
    view = status.of_end(end)
    if target is not None:
        size = await save(chunks(mesh, end), target, force)
        if out.as_json:
            out.document(dict(vars(view)) | {"result": None, "file": str(target), "size": size})
        else:
            out.note(f"{target}: {size} bytes{', ' + end.content_type if end.content_type else ''}")
            for text in changes(end.info):
                out.note(text)
        return OK
    if end.content_type:
        out.refuse_terminal(target, end.content_type)
    if out.as_json:
        out.document(dict(vars(view)) | {"result": await mesh.value(end)})
    elif end.content_type:
        async for chunk in chunks(mesh, end):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    else:
        out.value(await mesh.value(end))
    return OK
