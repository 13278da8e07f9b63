"""The daemon's side of one worker process: starts it, sends it jobs, receives its frames, ends it.

Each worker leads a session of its own, so that one signal reaches it and every process it started, and Ctrl-C in a
terminal reaches none of them. Besides a socket, both sides share a page (the board) and a pipe through which the daemon
requests the results that a worker holds back during a long job.
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
from typing import Any, cast

import msgspec

from node.executor import limits, protocol
from node.executor.dispatch import WorkerSlot
from node.executor.jobs import Job

log = logging.getLogger(__name__)

LOG_BYTES = 1024 * 1024
#: How many of its last log lines explain the end of a worker.
REASON_LINES = 3

#: Kills the listed process groups when its input closes. Otherwise the helpers of a worker outlive a killed daemon.
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
    """The directory from which workers import `node`: the same as this process."""
    return Path(__file__).parents[2]


OnFrames = Callable[["WorkerProcess", Iterable[tuple[int, Any]]], None]


@dataclass(frozen=True)
class Permissions:
    """What the operator allows workers; passed as arguments, because their environment is cleaned."""

    fault_kinds: bool = False
    """Whether `echo` fails, crashes and hangs on request."""
    grants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """See `node.executor.context.Context.grants`."""

    def arguments(self) -> tuple[str, str]:
        """The permissions as command-line arguments; `node.executor.worker_main.parse_grants` reads the second."""
        return str(int(self.fault_kinds)), json.dumps(dict(self.grants))


class Guard:
    """A shell (1 MB) that outlives a killed daemon just long enough to kill the process groups of its workers."""

    def __init__(self) -> None:
        self._process = process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
            cwd="/",
        )
        assert process.stdin is not None
        self._stdin = process.stdin

    def watch(self, group: int, alive: bool) -> None:
        """Add the process group `group` to those that end with the daemon; with `alive` false, remove it."""
        try:
            os.write(self._stdin.fileno(), f"{'+' if alive else '-'} {group}\n".encode())
        except OSError as error:
            log.warning("the guard of the worker processes has ended: %s", error)

    def close(self) -> None:
        """End the guard, and every process group that it still watches."""
        self._stdin.close()
        self._process.wait(timeout=5)


class WorkerProcess(asyncio.Protocol):
    """A worker, from its start until its process is reaped. The executor decides what follows from its frames."""

    def __init__(
        self,
        number: int,
        folder: Path,
        on_frames: OnFrames,
        on_lost: Callable[[WorkerProcess], None],
    ) -> None:
        self.number, self.ready, self.lost, self.retired = number, False, False, False
        self.worker_slot = WorkerSlot()
        self.held: dict[int, Job] = {}
        """sequence number -> job, of the jobs that it has not answered, in order"""
        self.verdict: tuple[int, str] | None = None
        """(sequence number, reason) of the job for which it is being killed"""
        self.dropped: set[int] = set()
        """sequence numbers of jobs that were cancelled after it was lost"""
        self.outdated = False
        """whether its folder was removed: it gets no more jobs"""
        self.idle_since = monotonic()
        self.gone = asyncio.Event()
        """set when `lost` becomes true"""
        self._folder = folder
        self._on_frames, self._on_lost = on_frames, on_lost
        self._splitter = protocol.Splitter()
        self._next_seq = 1
        self._killed = False
        self._log_mark = 0

    # --- start

    async def launch(self, guard: Guard, results: Path, permissions: Permissions) -> None:
        """Start the process; its first frame reports that it is ready. Raises: OSError, when it can't start."""
        self._guard = guard
        ours, theirs = socket.socketpair()
        try:
            self._start_process(theirs, results, permissions)
        except OSError:
            ours.close()
            raise
        guard.watch(self.process.pid, alive=True)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def _start_process(self, theirs: socket.socket, results: Path, permissions: Permissions) -> None:
        # Runs in the loop's thread, 2 ms: on Linux the process dies with the *thread* that started it (PDEATHSIG).
        task_folder = self._folder / f"worker-{self.number}"
        task_folder.mkdir(mode=0o700, exist_ok=True)
        self._task_folder = task_folder
        self._log_path = self._folder / f"worker-{self.number}.log"
        flush_read, self._flush_fd = os.pipe()
        os.set_blocking(self._flush_fd, False)
        with (
            open(self._log_path, "ab") as log_file,
            tempfile.TemporaryFile(dir=self._folder) as board,
            theirs,
            os.fdopen(flush_read, "rb"),
        ):
            board.truncate(protocol.BOARD_BYTES)
            shared = memoryview(mmap.mmap(board.fileno(), protocol.BOARD_BYTES))
            self._words, self._times = shared.cast("Q"), shared.cast("d")
            passed = (theirs.fileno(), board.fileno(), flush_read)
            arguments = [str(os.getpid()), *map(str, passed), str(task_folder), str(results), *permissions.arguments()]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "node.executor.worker_main", *arguments],
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

    @property
    def takes_jobs(self) -> bool:
        """Whether it may be given jobs."""
        return self.ready and self.verdict is None and not self.outdated and not self.retired

    def send(self, jobs: Sequence[Job]) -> None:
        """Send `jobs`, which the worker runs in this order."""
        if not self.held:
            self._log_mark = self._log_bytes()
        seq, batch = self._next_seq, list[protocol.JobFrame]()
        for job in jobs:
            blobs = {blob: str(file) for blob, file in job.blobs.items()} if job.blobs else None
            resume = str(job.resume) if job.resume else ""
            batch.append(protocol.JobFrame(seq, job.kind, job.payload, job.cores, job.memory_mb, blobs, resume))
            self.held[seq] = job
            seq += 1
        self._next_seq = seq
        self._transport.write(protocol.frame(protocol.JOBS, batch))

    def current(self, now: float) -> tuple[int, float]:
        """(sequence number of its present job, for how many seconds); (0, 0.0) when it has no unanswered job."""
        seq = self._words[protocol.CURRENT]
        # Read in this order: the start may then be too late, never too early.
        return (seq, max(0.0, now - self._times[protocol.STARTED])) if seq in self.held else (0, 0.0)

    def behind(self) -> int:
        """How many jobs wait behind the present one."""
        current = self._words[protocol.CURRENT]
        return sum(seq > current for seq in self.held)

    def report_checkpoint(self, seq: int, stored: bool) -> None:
        """Count a checkpoint of the job `seq` as stored or not, if that is still the present job."""
        if self._words[protocol.CURRENT] == seq:
            self._words[protocol.KEPT if stored else protocol.UNKEPT] += 1

    def settle(self) -> None:
        """Update its worker slot to the jobs that it still holds."""
        worker_slot, left = self.worker_slot, len(self.held)
        if not left:
            if worker_slot.jobs:
                self.idle_since = monotonic()
            self.worker_slot = WorkerSlot(last=worker_slot.last)
        elif left != worker_slot.jobs:
            share = left / worker_slot.jobs
            worker_slot.jobs, worker_slot.work_s = left, worker_slot.work_s * share
            worker_slot.size_bytes = int(worker_slot.size_bytes * share)

    def recall(self) -> list[Job]:
        """Take away the jobs it has not started, in order, and request the results it holds back."""
        self._words[protocol.FLOOR] = self._next_seq
        current = self._words[protocol.CURRENT]
        recalled = [self.held.pop(seq) for seq in list(self.held) if seq > current]
        try:
            os.write(self._flush_fd, b"p")
        except OSError as error:
            log.debug("could not request the results of worker %d: %s", self.number, error)
        return recalled

    def base_bytes(self) -> int:
        """Its resident memory before the present job, bytes."""
        return self._words[protocol.BASE]

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # cast: the transports of uvloop are no subclasses of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._on_frames(self, self._splitter.feed(data))
        except (protocol.BrokenStream, msgspec.DecodeError) as error:
            log.error("replacing worker %d, which sent a broken frame: %s", self.number, error)
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.gone.set()
        self._on_lost(self)

    # --- end

    def retire(self) -> None:
        """End an idle worker."""
        self.retired = True
        self._transport.close()

    def kill(self) -> None:
        """Kill it and every process it started; `on_lost` follows."""
        if not self._killed:
            # Only once: after the process is reaped, another one may have its pid.
            self._killed = True
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError) as error:
                log.debug("worker %d has ended already: %s", self.number, error)
        if self.process.poll() is not None:
            # A process that it forked may keep the other end of the socket open.
            self._transport.abort()

    async def reap(self) -> str:
        """After `on_lost`: kill what is left of it, and free its resources; returns how it ended, as a phrase."""
        self.kill()
        status = await asyncio.get_running_loop().run_in_executor(None, self.process.wait)
        self._guard.watch(self.pid, alive=False)
        os.close(self._flush_fd)
        reason = self._last_log_lines()
        shutil.rmtree(self._task_folder, ignore_errors=True)
        self._log_path.unlink(missing_ok=True)
        how = f"ended with exit code {status}" if status >= 0 else f"was killed by {_signal_name(-status)}"
        return f"{how} ({reason})" if reason else how

    def bound_log(self) -> None:
        """Truncate its log when it has grown past LOG_BYTES."""
        if self._log_bytes() > LOG_BYTES:
            os.truncate(self._log_path, 0)
            self._log_mark = 0

    def _log_bytes(self) -> int:
        """The size of its log; 0 when somebody has removed it."""
        try:
            return os.path.getsize(self._log_path)
        except OSError:
            return 0

    def _last_log_lines(self) -> str:
        """Its last log lines since it got its present jobs, without those of a traceback."""
        try:
            with open(self._log_path, "rb") as file:
                file.seek(max(self._log_mark, self._log_bytes() - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"its log can't be read: {error.strerror}"
        kept = [line for line in lines if line and not line.startswith((" ", "Traceback", "\t"))]
        return "; ".join(kept[-REASON_LINES:])[-500:]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
