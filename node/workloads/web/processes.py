"""The processes of a load test as the task sees them: starting them, hearing them, ending them.

They share the task's process group, so whatever ends the task ends them; and they end when their input closes, which
it does however this process ends.
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
SAID_CHARS = 300


class ProcessFault(RuntimeError):
    """A process of the load test ended, or is silent, when it should be at work."""


class Helper:
    """One child process that speaks JSON, a line a message."""

    def __init__(self, what: str, module: str, *words: str, pass_fds: Sequence[int] = ()) -> None:
        self.what = what
        # A file without a name, not a pipe: nobody reads it before the end.
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

    def tell(self, value: dict[str, Any]) -> None:
        """Sends a line. Raises: ProcessFault when nobody reads it."""
        try:
            self._input.write(json.dumps(value).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise self.ended() from None

    def hear(self) -> list[dict[str, Any]]:
        """The messages that are there; blocks when there is nothing. Raises: ProcessFault when it has ended."""
        data = os.read(self.output.fileno(), 1 << 16)
        if not data:
            raise self.ended()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> ProcessFault:
        """How it ended, as an error to raise."""
        status = self.process.wait()
        size = os.fstat(self._log_fd).st_size
        last = os.pread(self._log_fd, 4096, max(0, size - 4096)).decode(errors="replace")
        lines = [line for line in last.splitlines() if line.strip()]
        said = f" ({lines[-1][:SAID_CHARS]})" if lines else ""
        return ProcessFault(f"{self.what} ended with status {status} before the test was over{said}")

    def cpu_s(self) -> float:
        """Processor seconds it has used; 0 when it has just ended."""
        import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def end(self) -> None:
        """Gone, whatever it does."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self.output.close()
        self.process.wait()
        os.close(self._log_fd)


def hear(helpers: Sequence[Helper], within_s: float) -> Iterator[tuple[Helper, dict[str, Any]]]:
    """(who, message), as they come within `within_s`; none when nobody speaks. Raises: ProcessFault."""
    with selectors.DefaultSelector() as selector:
        for helper in helpers:
            selector.register(helper.output, selectors.EVENT_READ, helper)
        for key, _ in selector.select(within_s):
            for message in key.data.hear():
                yield key.data, message


def await_ready(helpers: Sequence[Helper]) -> None:
    """Returns when each said that it is. Raises: ProcessFault when one ends first, or nothing is heard for long."""
    waiting = list(helpers)
    ends = time.monotonic() + START_WITHIN_S
    while waiting:
        left_s = ends - time.monotonic()
        heard = [who for who, message in hear(waiting, max(0.0, left_s)) if message.get("ready")]
        if left_s <= 0:
            raise ProcessFault(f"{waiting[0].what} was not ready within {START_WITHIN_S:g} s")
        waiting = [one for one in waiting if one not in heard]


@contextlib.contextmanager
def servers(count: int) -> Generator[tuple[list[Helper], int], None, None]:
    """`count` server processes that share one free port of 127.0.0.1, and that port; they may not be ready yet."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in _listening(count)]
        port = sockets[0].getsockname()[1]
        made = []
        for number in range(count):
            fd = sockets[number % len(sockets)].fileno()
            made.append(Helper("the web server", "node.workloads.web.server", str(fd), pass_fds=(fd,)))
            stack.callback(made[-1].end)
        for sock in sockets:
            sock.close()  # else a server that died would leave its port open, and connections to it unanswered
        yield made, port


def _listening(count: int) -> list[socket.socket]:
    """A socket a process where the kernel shares connections out among them (Linux), else one for all."""
    shared_out = sys.platform.startswith("linux")
    sockets: list[socket.socket] = []
    port = 0
    for _ in range(count if shared_out else 1):
        sock = socket.socket()
        if shared_out:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(1024)
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets
