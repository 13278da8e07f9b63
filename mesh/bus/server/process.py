"""One nats-server as a child process: started, watched, stopped, and found again after its node was killed.

A server must not outlive its node, or it would hold the port and the store against the next start. On Linux the
kernel sees to that (parent-death signal); everywhere a file with its pid and start time lets the next start find
one that was left over. A pid alone proves nothing: the start time and the command line must fit as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import sys
from pathlib import Path
from typing import IO

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from mesh.errors import CannotStart
from mesh.files import write_atomically

log = logging.getLogger(__name__)

_WRAPPER = str(Path(__file__).with_name("exec.py"))
_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_BYTES = 16 * 1024


class ServerProcess:
    """A nats-server with the files `<name>.conf`, `<name>.log` and `<name>.pid` in `folder`."""

    def __init__(self, name: str, binary: Path, folder: Path, *, own_group: bool = True) -> None:
        self.name, self.folder = name, folder
        self.config_file = folder / f"{name}.conf"
        self.log_file = folder / f"{name}.log"
        self._binary, self._own_group = binary, own_group
        self._pid_file = folder / f"{name}.pid"
        self._child: asyncio.subprocess.Process | None = None
        self._handle: psutil.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its pid while it lives."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def launch(self, config_text: str | None = None) -> None:
        """Start it, with `config_text` as its configuration or the one it had. Raises: CannotStart."""
        group = "own" if self._own_group else "shared"
        wrapper = (sys.executable, "-I", "-S", _WRAPPER, str(os.getpid()), group)
        try:
            if config_text is not None:
                self.write_config(config_text)
            with self._output() as output:
                self._child = await asyncio.create_subprocess_exec(
                    *wrapper,
                    str(self._binary),
                    "-c",
                    str(self.config_file),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        except OSError as error:
            raise CannotStart(f"{self._binary} can't be started in {self.folder} ({error})") from None
        # Best effort, as a full disk must not keep a server from running: only the next start misses it.
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            self._handle = psutil.Process(self._child.pid)
            note = {"pid": self._child.pid, "started": self._handle.create_time()}
            write_atomically(self._pid_file, json.dumps(note).encode())

    def _output(self) -> IO[bytes]:
        """Where it says what it can't put in its log: a bad configuration, a crash."""
        return open(self.folder / f"{self.name}.out", "wb")

    async def wait(self) -> int:
        """Its exit code, once it has ended; negative is a signal."""
        assert self._child is not None, "launch it first"
        return await self._child.wait()

    def kill(self) -> None:
        """End it without order. Does not wait, may be called in any thread, and hits no other process: psutil compares
        the start times. A process that waits for a disk ends when the disk answers; it does nothing else until then."""
        if self._handle is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._handle.kill()

    async def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait; what ignores `with_signal` for 10 s is killed. One whose disk hangs is left
        after another 10 s."""
        if self._child is None:
            return
        await self.end(with_signal)
        if self.pid is None:  # else its disk hangs, and would stop this process, too
            self._forget_pid()

    async def end(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """As `stop`, for a process that is started again at once: the note of its pid is that of the next one."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(with_signal)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await child.wait()
            except TimeoutError:
                log.warning("the bus %s waits for its disk and ends when that works again", self.name)

    def write_config(self, text: str) -> None:
        """What the next launch will read. Raises: OSError."""
        write_atomically(self.config_file, text.encode())

    def reload(self) -> None:
        """Let it read its configuration file again (routes may change while it runs)."""
        if self._child and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGHUP)

    def last_words(self) -> str:
        """The last thing it complained about, else the last thing it said."""
        lines = tail(self.folder / f"{self.name}.out") + tail(self.log_file)
        return last_error(lines)

    def cause(self, code: int) -> str:
        """Why it ended with that exit code, for people."""
        if code == 0:
            return "somebody told it to stop"
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}: {self.last_words()}"

    async def stop_leftover(self) -> bool:
        """End the server a killed node left running in this folder; whether there was one."""
        return await asyncio.to_thread(self._stop_leftover)

    def _stop_leftover(self) -> bool:
        leftover = self._leftover()
        if leftover is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                leftover.terminate()
                if not _ended(leftover, _STOP_TIMEOUT_S):
                    leftover.kill()
                    _ended(leftover, _STOP_TIMEOUT_S)
        self._forget_pid()
        return leftover is not None

    def _forget_pid(self) -> None:
        # On a read-only disk the note stays: whoever reads it checks the start time and the command line.
        with contextlib.suppress(OSError):
            self._pid_file.unlink(missing_ok=True)

    def _leftover(self) -> psutil.Process | None:
        try:
            note = json.loads(self._pid_file.read_bytes())
            process = psutil.Process(int(note["pid"]))
            same = abs(process.create_time() - float(note["started"])) < 1.0
            return process if same and str(self.config_file) in process.cmdline() else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None


def _ended(process: psutil.Process, timeout_s: float) -> bool:
    """Whether `process`, no child of ours, ends within `timeout_s`; waiting to be reaped counts as ended."""
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return True
        try:
            watch = select.poll()
            watch.register(fd, select.POLLIN)
            return bool(watch.poll(timeout_s * 1000))
        finally:
            os.close(fd)
    try:
        process.wait(timeout_s)
        return True
    except psutil.TimeoutExpired:
        return False


def last_error(lines: list[str]) -> str:
    """The last fatal line of a nats-server's log, else its last error, else its last line, without the stamp."""
    for level in ("[FTL]", "[ERR]", "nats-server:", ""):
        for line in reversed(lines):
            if level in line and line.strip():
                return line.split(level)[-1].strip() if level else line.strip()
    return "it said nothing"


def tail(file: Path) -> list[str]:
    """The last lines of a log; none when it can't be read."""
    try:
        with open(file, "rb") as log:
            log.seek(max(0, file.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()
    except OSError:
        return []
