"""One worker process as its daemon sees it: starting it, sending it jobs, hearing of it, ending it.

Each worker leads a session of its own, so that one signal reaches it and all it started, and Ctrl-C in a
terminal does not. Besides the socket both sides share a page (the board) and a pipe with which the daemon
asks for results that a worker holds back while it is on a long job.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from node.executor import limits, protocol
from node.executor.dispatch import WorkerSlot

log = logging.getLogger(__name__)

LOG_BYTES = 1024 * 1024
SAID_LINES = 3

#: Ends the groups it was told of when its input closes: a worker's helpers outlive a killed daemon otherwise.
_GUARD = """trap '' HUP INT TERM
groups=
while read -r what group; do
  others=
  for each in $groups; do [ "$each" = "-$group" ] || others="$others $each"; done
  groups=$others
  [ "$what" = - ] || groups="$groups -$group"
done
[ -z "$groups" ] || kill -s KILL -- $groups 2>/dev/null"""


def code_folder() -> Path:
    """The directory from which workers import `node`: the one that ours comes from."""
    return Path(__file__).parents[2]


Hear = Callable[["WorkerProcess", Iterable[tuple[int, Any]]], None]


@dataclass(frozen=True)
class Allowed:
    """What the node's operator allows its workers; told when one starts, for its environment holds nothing."""

    fault_kinds: bool = False
    """Whether `echo` breaks things on order."""
    grants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """See `node.executor.context.Context.grants`."""

    def words(self) -> tuple[str, str]:
        """The same as words of a command line."""
        return str(int(self.fault_kinds)), json.dumps(dict(self.grants))


class Guard:
    """A shell of 1 MB that outlives a killed daemon just long enough to end its workers' process groups."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
            cwd="/",
        )

    def watch(self, group: int, alive: bool) -> None:
        """From now on (or, not `alive`, no more) end the process group `group` with the daemon."""
        try:
            os.write(self._process.stdin.fileno(), f"{'+' if alive else '-'} {group}\n".encode())
        except OSError as error:
            log.warning("the guard of the worker processes is gone: %s", error)

    def close(self) -> None:
        """Ends it, and every group it still watches."""
        self._process.stdin.close()
        self._process.wait(timeout=5)


class WorkerProcess(asyncio.Protocol):
    """A worker, from its start until it is gone for good. The executor holds what it is to do with the news."""

    def __init__(
        self,
        number: int,
        folder: Path,
        on_frames: Hear,
        on_lost: Callable[[WorkerProcess], None],
    ) -> None:
        self.number, self.ready, self.lost, self.retired = number, False, False, False
        self.worker_slot = WorkerSlot()
        self.held: dict[int, Any] = {}
        """sequence number -> job, for all it was sent and has not answered, in order"""
        self.verdict: tuple[int, str] | None = None
        """(sequence number, why) of the job for which it is being killed"""
        self.dropped: set[str] = set()
        """ids of jobs cancelled when it was already lost"""
        self.idle_since = monotonic()
        self.gone = asyncio.Event()
        """set with `lost`"""
        self._folder = folder
        self._on_frames, self._on_lost = on_frames, on_lost
        self._splitter = protocol.Splitter()
        self._next_seq = 1
        self._killed = False
        self._log_mark = 0

    # --- start

    async def launch(self, guard: Guard, results: Path, allowed: Allowed) -> None:
        """Starts the process; its first frame says that it is ready. Raises: OSError, when it can't start."""
        self._guard = guard
        ours, theirs = socket.socketpair()
        try:
            self._start_process(theirs, results, allowed)
        except OSError:
            ours.close()
            raise
        guard.watch(self.process.pid, alive=True)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def _start_process(self, theirs: socket.socket, results: Path, allowed: Allowed) -> None:
        # In the loop's own thread, 2 ms: Linux ends a process with the *thread* that started it (PDEATHSIG).
        task_folder = self._folder / f"worker-{self.number}"
        task_folder.mkdir(mode=0o700, exist_ok=True)
        self._task_folder = task_folder
        self._log_path = self._folder / f"worker-{self.number}.log"
        poke_read, self._poke_fd = os.pipe()
        os.set_blocking(self._poke_fd, False)
        with (
            open(self._log_path, "ab") as log_file,
            tempfile.TemporaryFile(dir=self._folder) as board,
            theirs,
            os.fdopen(poke_read, "rb"),
        ):
            board.truncate(protocol.BOARD_BYTES)
            shared = memoryview(mmap.mmap(board.fileno(), protocol.BOARD_BYTES))
            self._words, self._times = shared.cast("Q"), shared.cast("d")
            passed = (theirs.fileno(), board.fileno(), poke_read)
            words = [str(os.getpid()), *map(str, passed), str(task_folder), str(results), *allowed.words()]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "node.executor.worker_main", *words],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=passed,
                cwd=task_folder,
                env=limits.clean_environment(os.environ, task_folder, code_folder()),
                start_new_session=True,
            )
        self.pid = self.process.pid

    # --- jobs

    def send(self, jobs: Sequence[Any]) -> None:
        """Gives it `jobs` (id, kind, payload, cores, memory_mb, blobs, resume), to be done in this order."""
        if not self.held:
            self._log_mark = os.path.getsize(self._log_path)
        seq, batch = self._next_seq, []
        for job in jobs:
            blobs = {blob: str(file) for blob, file in job.blobs.items()} if job.blobs else None
            resume = str(job.resume) if job.resume else ""
            batch.append(protocol.JobFrame(seq, job.kind, job.payload, job.cores, job.memory_mb, blobs, resume))
            self.held[seq] = job
            seq += 1
        self._next_seq = seq
        self._transport.write(protocol.frame(protocol.JOBS, batch))

    def current(self, now: float) -> tuple[int, float]:
        """(the job it is on, for how many seconds); (0, 0.0) when it is on none that it still owes."""
        seq = self._words[protocol.CURRENT]
        # In this order: at worst a start that is too late is read, never one that is too early.
        return (seq, max(0.0, now - self._times[protocol.STARTED])) if seq in self.held else (0, 0.0)

    def behind(self) -> int:
        """How many jobs it has not started."""
        current = self._words[protocol.CURRENT]
        return sum(seq > current for seq in self.held)

    def report_checkpoint(self, seq: int, kept: bool) -> None:
        """What became of a checkpoint of the job `seq`, should it still be on that."""
        if self._words[protocol.CURRENT] == seq:
            self._words[protocol.KEPT if kept else protocol.UNKEPT] += 1

    def settle(self) -> None:
        """Brings its seat in line with what it still holds."""
        worker_slot, left = self.worker_slot, len(self.held)
        if not left:
            if worker_slot.jobs:
                self.idle_since = monotonic()
            self.worker_slot = WorkerSlot(last=worker_slot.last)
        elif left != worker_slot.jobs:
            share = left / worker_slot.jobs
            worker_slot.jobs, worker_slot.work_s = left, worker_slot.work_s * share
            worker_slot.size_bytes = int(worker_slot.size_bytes * share)

    def call_back(self) -> list[Any]:
        """Takes away the jobs it has not started, in order; asks for the results it has ready."""
        self._words[protocol.FLOOR] = self._next_seq
        current = self._words[protocol.CURRENT]
        back = [self.held.pop(seq) for seq in list(self.held) if seq > current]
        try:
            os.write(self._poke_fd, b"p")
        except OSError as error:
            log.debug("worker %d was not asked for its results: %s", self.number, error)
        return back

    def base_bytes(self) -> int:
        """What it had resident before its present job."""
        return self._words[protocol.BASE]

    # --- news

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._on_frames(self, self._splitter.feed(data))
        except (protocol.BrokenStream, msgspec.DecodeError) as error:
            log.error("worker %d sent something that is no frame (%s); it is replaced", self.number, error)
            self.kill()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.gone.set()
        self._on_lost(self)

    # --- end

    def retire(self) -> None:
        """Lets an idle worker end."""
        self.retired = True
        self._transport.close()

    def kill(self) -> None:
        """Ends it and everything it started, now; `on_lost` follows."""
        if not self._killed:
            # Once only: after the process is reaped its number may belong to somebody else.
            self._killed = True
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError) as error:
                log.debug("worker %d was gone already: %s", self.number, error)
        if self.process.poll() is not None:
            # A process it forked may still hold the socket's other end open.
            self._transport.abort()

    async def bury(self) -> str:
        """After `on_lost`: ends what is left of it, frees all it had. How it ended, as a phrase."""
        self.kill()
        status = await asyncio.get_running_loop().run_in_executor(None, self.process.wait)
        self._guard.watch(self.pid, alive=False)
        os.close(self._poke_fd)
        said = self._last_words()
        shutil.rmtree(self._task_folder, ignore_errors=True)
        self._log_path.unlink(missing_ok=True)
        how = f"ended with exit code {status}" if status >= 0 else f"was killed by {_signal_name(-status)}"
        return f"{how} ({said})" if said else how

    def bound_log(self) -> None:
        """Empties its log when that has grown past LOG_BYTES."""
        if os.path.getsize(self._log_path) > LOG_BYTES:
            os.truncate(self._log_path, 0)
            self._log_mark = 0

    def _last_words(self) -> str:
        """What it logged last since it was given its present jobs, without the lines of a stack."""
        with open(self._log_path, "rb") as file:
            file.seek(max(self._log_mark, os.path.getsize(self._log_path) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
        words = [line for line in lines if line and not line.startswith((" ", "Traceback", "\t"))]
        return "; ".join(words[-SAID_LINES:])[-500:]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
