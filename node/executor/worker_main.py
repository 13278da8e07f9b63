"""The worker process: receives jobs, runs them one after the other, sends their results back.

Started as `python -P -m node.executor.worker_main <parent pid> <socket fd> <board fd> <flush fd> <folder> <results
folder> <fault kinds 0|1> <grants as JSON>`. It reports that it is ready before it has loaded the table of kinds, and
loads the libraries of a kind at its first job. Before each job it writes the job's number on the board, so that the
daemon knows the culprit if the process dies.
"""

from __future__ import annotations

import errno
import gc
import json
import mmap
import os
import select
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any

from mesh.errors import BadInput, Fault
from mesh.messages import TaskError, decode_any, encode
from node.executor import limits, memory_reuse, protocol
from node.executor.context import CertainFailure, Context, InputFault, NotAvailableNow, Output, load
from node.executor.result_files import ResultFiles

RECEIVE_BYTES = 256 * 1024
#: While more jobs wait, results are sent together after this long at most, the next job included, seconds. Sent one by
#: one, each would wake up the daemon, the bus and the submitter: half the cost of a 1 ms task.
HOLD_S = 0.008
HOLD_RESULTS = 32
#: After a job that ran longer than this the worker cleans up before the next job, seconds. Shorter jobs can hardly
#: leave anything behind; it cleans up before their results are sent: the three system calls cost as much as a no-op.
TIDY_S = 50e-6
#: After a job that ran longer than this the memory baseline is measured again, seconds.
STALE_S = 0.05
PROGRESS_EVERY_S = 0.1
#: Progress reports carry the end of a growing text, this many characters.
TEXT_CHARS = 4000
MESSAGE_CHARS = 2000

Validate = Callable[[str, Any], Any]


class Worker:
    """The worker's side of the socket. One thread runs jobs; another one flushes results on request."""

    def __init__(
        self,
        sock: socket.socket,
        board: memoryview,
        folder: Path,
        results: Path,
        fault_kinds: bool,
        grants: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._sock, self._folder, self._results = sock, folder, results
        self._files = ResultFiles(folder, results)
        self._fault_kinds, self._grants = fault_kinds, grants
        self._words, self._times = board.cast("Q"), board.cast("d")
        self._lock = threading.Lock()
        self._pending: list[protocol.ResultFrame] = []
        self._pending_since = 0.0
        self._means: dict[str, float] = {}
        self._memory_mb, self._stale = -1, True
        self._validate: Validate | None = None
        self._folder_fd = self._open_folder()
        self._progress_at = 0.0
        self._checkpoints = 0
        self._clock_offset_s = time() - monotonic()
        self._untidied = False
        self._give_back = memory_reuse.keep_freed()
        self._keeps_memory = False
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    # --- the loop

    def serve(self) -> None:
        """Run jobs until the daemon closes the socket."""
        splitter = protocol.Splitter()
        # One buffer for all reads: the allocator would map and unmap a new one of this size each time.
        buffer = bytearray(RECEIVE_BYTES)
        view = memoryview(buffer)
        while size := self._receive(buffer):
            skipped: list[int] = []
            self._clock_offset_s = time() - monotonic()
            for kind, body in splitter.feed(view[:size]):
                if kind == protocol.JOBS:
                    skipped += [job.seq for job in protocol.decode_jobs(body) if not self._take(job)]
            self._deliver()
            if skipped:
                self._send(protocol.SKIPPED, skipped)

    def _receive(self, buffer: bytearray) -> int:
        """Wait for frames; after a while without any, give freed memory back."""
        if self._keeps_memory and not self._readable.poll(memory_reuse.IDLE_MS):
            self._keeps_memory = False
            self._give_back()
        return self._sock.recv_into(buffer)

    def flush(self) -> None:
        """Send every result that is ready; callable from any thread."""
        with self._lock:
            if self._pending:
                ready, self._pending = self._pending, list[protocol.ResultFrame]()
                self._sock.sendall(protocol.frame(protocol.RESULTS, ready))

    def _deliver(self) -> None:
        self.flush()
        if self._untidied:
            self._tidy()

    def _send(self, kind: int, body: Any) -> None:
        with self._lock:
            self._sock.sendall(protocol.frame(kind, body))

    def _take(self, job: protocol.JobFrame) -> bool:
        """Run one job; False when the daemon recalled it before it started."""
        start = monotonic()
        if self._pending and (
            len(self._pending) >= HOLD_RESULTS or start - self._pending_since + self._means.get(job.kind, 1.0) > HOLD_S
        ):
            self._deliver()
        if self._stale or job.memory_mb != self._memory_mb:
            self._words[protocol.BASE] = limits.limit_data(job.memory_mb)
            self._memory_mb, self._stale = job.memory_mb, False
        self._words[protocol.KEPT] = self._words[protocol.UNKEPT] = 0
        self._times[protocol.STARTED] = start
        self._words[protocol.CURRENT] = job.seq
        # Checked only now: the daemon may have raised the floor before, and sent this job to another worker.
        if job.seq < self._words[protocol.FLOOR]:
            return False
        end = self._run(job, start)
        self._untidied = True
        if end.ran_s > TIDY_S:
            self._tidy()
        with self._lock:
            if not self._pending:
                self._pending_since = end.started_at - self._clock_offset_s + end.ran_s
            self._pending.append(end)
        return True

    # --- one job

    def _run(self, job: protocol.JobFrame, start: float) -> protocol.ResultFrame:
        result, error, content_type, file, info, attached = b"", None, "", "", None, None
        kind = job.kind
        self._files.forget()
        try:
            validate = self._validate or self._load_validate()
            payload = validate(kind, decode_any(job.payload) if job.payload else None)
            run = load(kind)
            if kind not in self._means:
                start, self._stale = monotonic(), True
            value = run(payload, self._context(job))
            if isinstance(value, Output):
                result, file = self._files.pack_output(job.seq, value)
                content_type, info = value.content_type, value.info or None
            else:
                result, file = self._files.pack(job.seq, encode(value))
            attached = self._files.take(job.seq)
        except MemoryError:
            error = TaskError(code="memory", message=memory_message(kind, job.memory_mb), retryable=True)
        except (Exception, SystemExit, KeyboardInterrupt) as problem:
            error = error_of(kind, problem)
        ran_s = monotonic() - start
        mean_s = self._means.get(kind, ran_s)
        self._means[kind] = mean_s + 0.2 * (ran_s - mean_s)
        if ran_s > STALE_S:
            self._stale = True
        self._keeps_memory = self._keeps_memory or ran_s > memory_reuse.BRIEF_S
        started_at = start + self._clock_offset_s
        return protocol.ResultFrame(job.seq, started_at, ran_s, result, error, content_type, file, info, attached)

    def warm_up(self) -> None:
        """Load what every job needs, so that the first one does not have to: 0.3 s."""
        self._load_validate()
        gc.freeze()

    def _load_validate(self) -> Validate:
        from mesh.kinds.table import KINDS, validate

        tuple(KINDS.values())  # the contracts
        self._validate = validate
        return validate

    def _context(self, job: protocol.JobFrame) -> Context:
        def progress(fraction: float, note: str = "", text: str = "") -> None:
            now = monotonic()
            if now - self._progress_at >= PROGRESS_EVERY_S:
                self._progress_at = now
                done, before = min(1.0, max(0.0, float(fraction))), max(0, len(text) - TEXT_CHARS)
                self._send(protocol.PROGRESS, (job.seq, done, f"{note}"[:200], text[before:], before))

        def checkpoint(data: bytes | Path, note: str = "") -> None:
            self._checkpoints += 1
            file = self._results / f"{os.getpid()}-{job.seq}-{self._checkpoints}.checkpoint"
            if isinstance(data, Path):
                os.rename(self._files.own(data, "checkpoint"), file)
            else:
                file.write_bytes(data)
            self._send(protocol.CHECKPOINT, (job.seq, str(file), f"{note}"[:200]))

        def kept() -> tuple[int, int]:
            return self._words[protocol.KEPT], self._words[protocol.UNKEPT]

        resume = Path(job.resume) if job.resume else None
        blobs = {blob: Path(file) for blob, file in job.blobs.items()} if job.blobs else {}
        return Context(
            job.cores,
            self._folder,
            blobs,
            progress,
            resume,
            checkpoint,
            kept,
            job.memory_mb,
            self._fault_kinds,
            self._grants,
            self._files.attach,
        )

    # --- between two jobs

    def _open_folder(self) -> int:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        folder_fd = os.open(self._folder, os.O_RDONLY)
        os.fchdir(folder_fd)
        os.utime(folder_fd, ns=(0, 0))
        return folder_fd

    def _tidy(self) -> None:
        """Remove what jobs have left behind: files, working directory, processes. 7 µs when there is nothing."""
        self._untidied = False
        # The modification time was set to 0 when the folder was empty: any new entry changes it.
        found = os.fstat(self._folder_fd)
        if found.st_mtime_ns or not found.st_nlink:  # no link: somebody has removed the folder
            self._sweep()
        else:
            os.fchdir(self._folder_fd)
        if limits.has_children():
            limits.end_children()

    def _sweep(self) -> None:
        import shutil

        os.close(self._folder_fd)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder_fd = self._open_folder()
        for entry in os.scandir(self._folder):
            print(f"could not remove {entry.name} after a task", file=sys.stderr)


def memory_message(kind: str, memory_mb: int) -> str:
    """The error message of a job that exceeded its memory limit."""
    return f"{kind} needed more than its limit of {memory_mb} MB; raise it with requires.memory_mb."


def error_of(kind: str, problem: BaseException) -> TaskError:
    """The error that the submitter of a job gets for an exception; the traceback goes only to the worker's log."""
    if isinstance(problem, BadInput):
        faults = tuple((fault.field, fault.problem) for fault in problem.faults)
        return TaskError(code=problem.code, message=problem.message[:MESSAGE_CHARS], faults=faults)
    if isinstance(problem, InputFault):
        fault: Fault = problem.fault
        message = f"The payload of {kind} is not valid: {fault.field} {fault.problem}."
        return TaskError("bad_input", message[:MESSAGE_CHARS], ((fault.field, fault.problem),))
    if isinstance(problem, OSError) and problem.errno == errno.EFBIG:
        message = f"{kind} needed a larger file than a worker of this node may write ({limits.file_limit_mib():,} MiB)."
        return TaskError("file_too_large", message, retryable=True)
    if isinstance(problem, ImportError):
        code, now = ("busy", " now") if isinstance(problem, NotAvailableNow) else ("unavailable", "")
        message = f"This node can't run {kind}{now}: {problem}."
        return TaskError(code, message[:MESSAGE_CHARS], retryable=True)
    if isinstance(problem, CertainFailure):
        return TaskError("failed", f"{kind} failed: {problem}"[:MESSAGE_CHARS])
    traceback.print_exception(problem, file=sys.stderr)
    text = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
    return TaskError("failed", f"{kind} failed: {text}"[:MESSAGE_CHARS], retryable=True)


def parse_grants(argument: str) -> dict[str, tuple[str, ...]]:
    """The grants from the argument that `node.executor.process.Permissions` made of them."""
    return {setting: tuple(values) for setting, values in json.loads(argument).items()}


def _flush_on_request(worker: Worker, flush_fd: int) -> None:
    """Flush results whenever the daemon requests it; the pipe closes when the daemon ends."""
    while os.read(flush_fd, 64):
        worker.flush()
    os._exit(0)


def main() -> None:
    """Run the worker process."""
    parent, socket_fd, board_fd, flush_fd = (int(argument) for argument in sys.argv[1:5])
    folder, results, fault_kinds = Path(sys.argv[5]), Path(sys.argv[6]), sys.argv[7] == "1"
    grants = parse_grants(sys.argv[8])
    for fd in (socket_fd, board_fd, flush_fd):
        os.set_inheritable(fd, False)
    limits.confine(parent, folder.parent)
    sock = socket.socket(fileno=socket_fd)
    board = memoryview(mmap.mmap(board_fd, protocol.BOARD_BYTES))
    worker = Worker(sock, board, folder, results, fault_kinds, grants)
    threading.Thread(target=_flush_on_request, args=(worker, flush_fd), daemon=True, name="flush").start()
    sock.sendall(protocol.frame(protocol.READY, os.getpid()))
    worker.warm_up()
    try:
        worker.serve()
    except (ConnectionError, protocol.BrokenStream):
        os._exit(1)
    # Not a normal exit: threads and hooks that a workload has left behind must not keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    main()
