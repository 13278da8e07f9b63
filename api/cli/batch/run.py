"""The work of `map`: upload each file, run its task, store its output in the folder; `window` inputs at once.

Ctrl-C cancels the open tasks; the journal keeps what is done.
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
#: Files uploaded at once: each has up to 4 MiB in flight.
UPLOADS = 4
CANCEL_WITHIN_S = 3.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of one input."""

    input: str
    task: str = ""
    output: str = ""
    """Name of the file in the output folder; "" after a failure."""
    error: dict[str, Any] | None = None
    """{state, code, reason, faults} after a failure."""


@dataclass(frozen=True)
class Job:
    """What is done to each file."""

    kind: str
    field_name: str
    payload: Mapping[str, Any]
    options: Mapping[str, Any]
    """Further fields of SubmitRequest."""


@dataclass
class Run:
    """One `map` over the inputs that have no output yet."""

    mesh: Mesh
    journal: Journal
    folder: Path
    job: Job
    report: Callable[[Outcome], None]
    note: Callable[[str], None]
    _uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UPLOADS))
    _unreachable: bool = False

    async def run(self, inputs: Mapping[str, tuple[str, str]], window: int) -> None:
        """Process all of `inputs`: input -> (key, stem). Failures are reported, not raised."""
        source = iter(inputs.items())
        async with asyncio.TaskGroup() as group:
            for number in range(min(window, len(inputs))):
                group.create_task(self._worker(source), name=f"map {number}")

    async def _worker(self, source: Iterator[tuple[str, tuple[str, str]]]) -> None:
        for path, (key, stem) in source:
            self.report(await self._process(path, key, stem))

    async def _process(self, path: str, key: str, stem: str) -> Outcome:
        from mesh.errors import QueztlError

        task: str = ""
        uploaded: str = ""
        try:
            data = await self._data(Path(path))
            uploaded = data["blob"] if isinstance(data, dict) else ""
            task = await self._start({**self.job.payload, self.job.field_name: data})
            end = await self.mesh.wait(task)
            if end.state != "done":
                return Outcome(path, task, error=failure(end))
            output = stem + extension(end.content_type)
            await save(chunks(self.mesh, end), self.folder / output)
            self.journal.finished(path, key, output)
            await self._tidy(uploaded, end)
            return Outcome(path, task, output)
        except asyncio.CancelledError:
            if task:
                await self._cancel(task, uploaded)
            raise
        except (QueztlError, OSError) as error:
            return Outcome(path, task, error=refusal(error))

    async def _data(self, path: Path) -> Any:
        data = small(path)
        if data is not None:
            return data
        async with self._uploads:
            return await upload(self.mesh, path)

    async def _start(self, payload: dict[str, Any]) -> str:
        """Submit; while the mesh is full or unreachable, try again: nothing was accepted, so nothing runs twice."""
        from mesh.errors import Busy

        while True:
            try:
                handle = await self.mesh.start(self.job.kind, payload, **self.job.options)
                self._unreachable = False
                return handle.id
            except Busy as error:
                if not self._unreachable:
                    self.note(f"{error.message}; trying again; after Ctrl-C the same command resumes")
                self._unreachable = True
                await asyncio.sleep(error.retry_after_s)

    async def _tidy(self, uploaded: str, end: TaskEnd) -> None:
        """Delete the blobs of the upload and of the result: the output is in place."""
        from mesh.errors import QueztlError

        blobs = [uploaded, end.result_ref.blob if end.result_ref else ""]
        with suppress(QueztlError):  # they expire after a day
            for blob in filter(None, blobs):
                await self.mesh.bus.objects.delete(blob)

    async def _cancel(self, task: str, uploaded: str) -> None:
        from mesh.errors import QueztlError

        with suppress(QueztlError, TimeoutError):  # the task then runs to its end, and nobody reads its result
            async with asyncio.timeout(CANCEL_WITHIN_S):
                await self.mesh.cancel(task)
                if uploaded:
                    await self.mesh.bus.objects.delete(uploaded)


def small(path: Path) -> bytes | None:
    """A file's bytes if the file may travel inside its task. Raises: OSError."""
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
    """Why there is no task, or no output."""
    from api.cli.output.exit_codes import error_document

    document = error_document(error)["error"]
    return {
        "state": "failed",
        "code": "file" if isinstance(error, OSError) else document["code"],
        "reason": document["message"],
        "faults": document["faults"],
    }
