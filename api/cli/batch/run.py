"""The work of `map`: each file up, its task through the mesh, its output into the folder; `window` at once.

Stopped by Ctrl-C it ends the tasks it has open; what is done is in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.input.task import upload
from api.cli.output.results import chunks, extension, save

if TYPE_CHECKING:
    from api.cli.batch.journal import Journal
    from mesh.client import Mesh
    from mesh.messages import TaskEnd

#: A file of at most this many bytes travels inside its task; a larger one as a blob.
INLINE_BYTES = 120 * 1024
#: Files that are uploaded at once: each has 4 MiB on its way.
UPLOADS = 4
CANCEL_WITHIN_S = 3.0


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    input: str
    task: str = ""
    output: str = ""
    """Name of the file in the output folder; "" when it failed."""
    error: dict[str, Any] | None = None
    """{state, code, reason, faults} when it failed."""


@dataclass(frozen=True)
class Wish:
    """What is to be done to each file."""

    kind: str
    field_name: str
    payload: Mapping[str, Any]
    options: Mapping[str, Any]
    """Those of SubmitRequest."""


@dataclass
class Run:
    """One `map` over the inputs that are missing."""

    mesh: Mesh
    journal: Journal
    folder: Path
    wish: Wish
    tell: Callable[[Outcome], None]
    note: Callable[[str], None]
    _uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UPLOADS))
    _unreachable: bool = False

    async def run(self, inputs: Mapping[str, tuple[str, str]], window: int) -> None:
        """Do all of `inputs`: input -> (key, stem). Failures are told, not raised."""
        source = iter(inputs.items())
        async with asyncio.TaskGroup() as group:
            for number in range(min(window, len(inputs))):
                group.create_task(self._worker(source), name=f"map {number}")

    async def _worker(self, source: Iterator[tuple[str, tuple[str, str]]]) -> None:
        for one, (key, stem) in source:
            self.tell(await self._one(one, key, stem))

    async def _one(self, one: str, key: str, stem: str) -> Outcome:
        from mesh.errors import QueztlError

        task, uploaded = "", ""
        try:
            data = await self._data(Path(one))
            uploaded = data["blob"] if isinstance(data, dict) else ""
            task = await self._start({**self.wish.payload, self.wish.field_name: data})
            end = await self.mesh.wait(task)
            if end.state != "done":
                return Outcome(one, task, error=failure(end))
            output = stem + extension(end.content_type)
            await save(chunks(self.mesh, end), self.folder / output)
            self.journal.finished(one, key, output)
            await self._tidy(uploaded, end)
            return Outcome(one, task, output)
        except asyncio.CancelledError:
            if task:
                await self._cancel(task, uploaded)
            raise
        except (QueztlError, OSError) as error:
            return Outcome(one, task, error=refusal(error))

    async def _data(self, path: Path) -> Any:
        data = small(path)
        if data is not None:
            return data
        async with self._uploads:
            return await upload(self.mesh, path)

    async def _start(self, payload: dict[str, Any]) -> str:
        """Submit; a mesh that is full or away is waited out: nothing was accepted yet, so nothing is repeated."""
        from mesh.errors import Busy

        while True:
            try:
                handle = await self.mesh.start(self.wish.kind, payload, **self.wish.options)
                self._unreachable = False
                return handle.id
            except Busy as error:
                if not self._unreachable:
                    self.note(f"{error.message}; trying again, Ctrl-C leaves a state that resumes")
                self._unreachable = True
                await asyncio.sleep(error.retry_after_s)

    async def _tidy(self, uploaded: str, end: TaskEnd) -> None:
        """The output is in place: neither the upload nor the result's blob is of use to anybody."""
        from mesh.errors import QueztlError

        blobs = [uploaded, end.result_ref.blob if end.result_ref else ""]
        with suppress(QueztlError):  # they go by themselves after a day
            for blob in filter(None, blobs):
                await self.mesh.bus.objects.delete(blob)

    async def _cancel(self, task: str, uploaded: str) -> None:
        from mesh.errors import QueztlError

        with suppress(QueztlError, TimeoutError):  # it then ends by itself, for nobody
            async with asyncio.timeout(CANCEL_WITHIN_S):
                await self.mesh.cancel(task)
                if uploaded:
                    await self.mesh.bus.objects.delete(uploaded)


def small(path: Path) -> bytes | None:
    """A file's bytes when they may travel inside a task. Raises: OSError."""
    return path.read_bytes() if path.stat().st_size <= INLINE_BYTES else None


def failure(end: TaskEnd) -> dict[str, Any]:
    """Why a task has no result."""
    error = end.error
    return {
        "state": end.state,
        "code": error.code if error else end.state,
        "reason": error.message if error else end.state,
        "faults": [{"field": name, "problem": problem} for name, problem in (error.faults if error else ())],
    }


def refusal(error: Exception) -> dict[str, Any]:
    """Why there is no task, or no output of one."""
    from api.cli.output.exit_codes import error_document

    document = error_document(error)["error"]
    return {
        "state": "failed",
        "code": "file" if isinstance(error, OSError) else document["code"],
        "reason": document["message"],
        "faults": document["faults"],
    }
