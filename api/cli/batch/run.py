"""The work of `map`: upload each file, run its task, store its output in the folder; `window` inputs at once.

A file that fails is reported, and the others go on. What would fail for every file stops the run: outputs that can't
be written, or a store of the mesh that is full of others' blobs. A stop and Ctrl-C cancel the open tasks; the journal
keeps what is done.
"""

from __future__ import annotations

import asyncio
import errno
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.input.task import upload
from api.cli.output.results import chunks, save
from mesh.files import named
from mesh.media_types import extension

if TYPE_CHECKING:
    from api.cli.batch.journal import Journal
    from mesh.client import Mesh
    from mesh.messages import TaskEnd

#: A file of at most this many bytes travels inside its task; a larger one as a blob.
INLINE_BYTES = 120 * 1024
#: Files uploaded at once: each has up to 4 MiB in flight.
UPLOADS = 4
CANCEL_WITHIN_S = 3.0
#: What is wrong with the name of one output; every other error would meet the next output as well.
OF_ONE_NAME = frozenset((errno.ENAMETOOLONG, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EINVAL))


@dataclass(frozen=True)
class Outcome:
    """The outcome of one input."""

    input: str
    task: str = ""
    output: str = ""
    """The file, relative to the output folder; "" after a failure."""
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


class Stopped(Exception):
    """The run can't go on."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause
        """OSError: an output can't be written. StorageFull: the mesh has no room."""


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
    _stored: set[str] = field(default_factory=set)
    """Inputs of which the mesh holds a blob now."""
    _removed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, inputs: Mapping[str, tuple[str, str]], window: int) -> None:
        """Process all of `inputs`: input -> (key, stem). Failures are reported, not raised. Raises: Stopped."""
        source = iter(inputs.items())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(window, len(inputs))):
                    group.create_task(self._worker(source), name=f"map {number}")
        except BaseExceptionGroup as several:
            first: BaseException = several
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None

    async def _worker(self, source: Iterator[tuple[str, tuple[str, str]]]) -> None:
        for path, (key, stem) in source:
            self.report(await self._process(path, key, stem))

    async def _process(self, path: str, key: str, stem: str) -> Outcome:
        """Process one input; one whose output is recorded counts also when the run is stopped."""
        from mesh.errors import QueztlError, StorageFull

        uploaded, task, done = _Upload(), "", None
        try:
            task = await self._submit(path, uploaded)
            end = await self.mesh.wait(task)
            if end.state != "done":
                return Outcome(path, task, error=failure(end))
            output = await self._store(end, path, stem)
            self._record(path, key, output)
            done = Outcome(path, task, output)
            await self._tidy(uploaded.blob, end)
            return done
        except asyncio.CancelledError:
            if done is not None:
                self.report(done)
            await self._cancel(task, uploaded.blob)
            raise
        except StorageFull as error:
            raise Stopped(error) from None
        except (QueztlError, OSError) as error:
            if not task:
                await self._delete(uploaded.blob)
            return Outcome(path, task, error=refusal(error))
        finally:
            self._stored.discard(path)
            self._removed.set()

    async def _submit(self, path: str, uploaded: _Upload) -> str:
        """Upload and submit; returns the id of the task.

        While the mesh is full or unreachable, it tries again: nothing was accepted, so nothing runs twice. While its
        store is full of inputs of this run, it waits until one of them is done. Raises: StorageFull, QueztlError,
        OSError.
        """
        from mesh.errors import Busy, StorageFull

        while True:
            try:
                if uploaded.data is None:
                    uploaded.data = await self._data(Path(path), uploaded)
                    self._stored |= {path} if uploaded.blob else set()
                payload = {**self.job.payload, self.job.field_name: uploaded.data}
                handle = await self.mesh.start(self.job.kind, payload, **self.job.options)
                self._unreachable = False
                return handle.id
            except Busy as error:
                if not self._unreachable:
                    self.note(f"{error.message}; trying again; after Ctrl-C the same command resumes")
                self._unreachable = True
                await asyncio.sleep(error.retry_after_s)
            except StorageFull:
                if not self._stored - {path}:
                    raise
                self._removed.clear()
                await self._removed.wait()

    async def _data(self, path: Path, uploaded: _Upload) -> Any:
        """The file for a payload: its bytes, or the reference of a blob. Raises: OSError, also when it changes."""
        before = path.stat()
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))  # a pipe would be waited for
        data: Any
        with named(path):
            if before.st_size <= INLINE_BYTES:
                data = path.read_bytes()
            else:
                async with self._uploads:
                    data = await upload(self.mesh, path)
                uploaded.blob = data["blob"]
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError(errno.EBUSY, "changed while it was read; the same command tries it again", str(path))
        return data

    async def _store(self, end: TaskEnd, path: str, stem: str) -> str:
        """Write the result of a task; returns the output. Raises: Stopped, when the next output could not be written
        either; BadInput when there is a file that no `map` wrote; QueztlError, OSError."""
        output = stem + extension(end.content_type)
        target = self.folder / output
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.journal.writing(path, output)
            await save(chunks(self.mesh, end), target, force=output in self.journal.remembered.written)
        except OSError as error:
            if error.errno in OF_ONE_NAME:
                raise
            raise Stopped(error) from None
        return output

    def _record(self, path: str, key: str, output: str) -> None:
        try:
            self.journal.finished(path, key, output)
        except OSError as error:
            raise Stopped(error) from None

    async def _tidy(self, uploaded: str, end: TaskEnd) -> None:
        """Delete the blobs of the upload and of the result: the output is in place."""
        await self._delete(uploaded)
        await self._delete(end.result_ref.blob if end.result_ref else "")

    async def _delete(self, blob: str) -> None:
        from mesh.errors import QueztlError

        if blob:
            with suppress(QueztlError):  # it expires after a day
                await self.mesh.bus.objects.delete(blob)

    async def _cancel(self, task: str, uploaded: str) -> None:
        from mesh.errors import QueztlError

        with suppress(QueztlError, TimeoutError):  # the task then runs to its end, and nobody reads its result
            async with asyncio.timeout(CANCEL_WITHIN_S):
                if task:
                    await self.mesh.cancel(task)
                await self._delete(uploaded)


@dataclass
class _Upload:
    """What an input has become so far."""

    data: Any = None
    """For the payload; None: it has not been read."""
    blob: str = ""
    """Its blob, if it has one."""


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
