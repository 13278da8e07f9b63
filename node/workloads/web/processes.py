"""Starts and ends the processes of a load test, and exchanges messages with them.

They share the process group of the task, so ending the task ends them. They also exit when their input closes, which
happens however this process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import node

START_WITHIN_S = 30.0
ERROR_CHARS = 300


class ProcessFault(RuntimeError):
    """A process of the load test ended early, or does not respond."""


class Helper:
    """A child process that exchanges JSON messages, one per line."""

    def __init__(self, what: str, module: str, *words: str, pass_fds: Sequence[int] = ()) -> None:
        self.what = what
        # Its stderr is an unnamed file, not a pipe, since it is read only at the end.
        self._log_fd, name = tempfile.mkstemp()
        os.unlink(name)
        code = str(Path(node.__path__[0]).parent)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_fd,
            pass_fds=pass_fds,
            env=os.environ | {"PYTHONPATH": code},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self.output = self.process.stdin, self.process.stdout
        self._rest = b""

    def send(self, value: dict[str, Any]) -> None:
        """Send a message. Raises: ProcessFault when the process has ended."""
        try:
            self._input.write(json.dumps(value).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise self.ended() from None

    def receive(self) -> list[dict[str, Any]]:
        """The available messages; blocks until there is data. Raises: ProcessFault when the process has ended."""
        data = os.read(self.output.fileno(), 1 << 16)
        if not data:
            raise self.ended()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> ProcessFault:
        """The error to raise when the process has ended, with its status and last line of stderr."""
        status = self.process.wait()
        size = os.fstat(self._log_fd).st_size
        last = os.pread(self._log_fd, 4096, max(0, size - 4096)).decode(errors="replace")
        lines = [line for line in last.splitlines() if line.strip()]
        reason = f" ({lines[-1][:ERROR_CHARS]})" if lines else ""
        return ProcessFault(f"{self.what} ended with status {status} before the test was over{reason}")

    def cpu_s(self) -> float:
        """The CPU seconds it has used; 0 when it has ended."""
        import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def end(self) -> None:
        """Kill the process and release its pipes."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self.output.close()
        self.process.wait()
        os.close(self._log_fd)


def receive(helpers: Sequence[Helper], within_s: float) -> Iterator[tuple[Helper, dict[str, Any]]]:
    """(sender, message) of the next messages; none after `within_s` without any. Raises: ProcessFault."""
    with selectors.DefaultSelector() as selector:
        for helper in helpers:
            selector.register(helper.output, selectors.EVENT_READ, helper)
        for key, _ in selector.select(within_s):
            for message in key.data.receive():
                yield key.data, message


def await_ready(helpers: Sequence[Helper]) -> None:
    """Wait until every process is ready. Raises: ProcessFault when one ends, or is not ready within START_WITHIN_S."""
    waiting = list(helpers)
    ends = time.monotonic() + START_WITHIN_S
    while waiting:
        left_s = ends - time.monotonic()
        ready = [sender for sender, message in receive(waiting, max(0.0, left_s)) if message.get("ready")]
        if left_s <= 0:
            raise ProcessFault(f"{waiting[0].what} was not ready within {START_WITHIN_S:g} s")
        waiting = [helper for helper in waiting if helper not in ready]


@contextlib.contextmanager
def servers(count: int) -> Generator[tuple[list[Helper], int], None, None]:
    """(`count` server processes on one free port of 127.0.0.1, that port); they may not be ready yet."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in _listening(count)]
        port = sockets[0].getsockname()[1]
        helpers = []
        for number in range(count):
            fd = sockets[number % len(sockets)].fileno()
            helpers.append(Helper("the web server", "node.workloads.web.server", str(fd), pass_fds=(fd,)))
            stack.callback(helpers[-1].end)
        for sock in sockets:
            sock.close()  # else the port of a server that died would stay open, and its connections unanswered
        yield helpers, port


def _listening(count: int) -> list[socket.socket]:
    """One socket per process where the kernel balances connections between them (Linux), else one for all."""
    balanced = sys.platform.startswith("linux")
    sockets: list[socket.socket] = []
    port = 0
    for _ in range(count if balanced else 1):
        sock = socket.socket()
        if balanced:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(1024)
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets
