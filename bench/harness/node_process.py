"""The node under test: a real `python -m node` in a process of its own, on loopback, with a fresh data folder."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from bench.harness.environment import pss_mb
from bench.harness.measure import BenchFailed

READY_WITHIN_S = 30.0
LEAVES_WITHIN_S = 15.0


class NodeProcess:
    """Use as `async with NodeProcess(folder) as node`; `api` is its address, `id` its node id.

    `mesh` and `join`: the mesh it joins; without them it creates one of its own.
    """

    def __init__(self, folder: Path, slots: int = 2, mesh: str = "", join: tuple[str, ...] = ()) -> None:
        self._folder, self._slots, self._join = folder, slots, join
        self.mesh = mesh or f"bench-{secrets.token_hex(4)}"
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None
        self.api = self.id = ""

    async def __aenter__(self) -> NodeProcess:
        command = [
            sys.executable, "-P", "-m", "node", "--interface", "lo", "--mesh", self.mesh,
            "--data", str(self._folder), "--api", "127.0.0.1:0", "--slots", str(self._slots),
            "--log-level", "warning", "--measure-after", "0", *(word for url in self._join for word in ("--join", url)),
        ]  # fmt: skip
        root = Path(__file__).resolve().parents[2]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUEZTL_")}
        environment["PYTHONPATH"] = str(root)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
        )
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._read_banner()
        except TimeoutError:
            await self.__aexit__()
            raise BenchFailed(f"the node was not ready within {READY_WITHIN_S:g} s") from None
        self._log = asyncio.create_task(self._forward_log(), name="node output")
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(LEAVES_WITHIN_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._log is not None:
            await self._log

    async def _read_banner(self) -> None:
        """Read the output up to the end of the banner, which names the API and the node."""
        lines: list[str] = []
        while not (self.api and "Ctrl-C" in lines[-1]):
            line = (await self._stream.readline()).decode(errors="replace")
            if not line:
                raise BenchFailed(f"the node did not start: {''.join(lines[-5:]).strip()}")
            lines.append(line)
            found = re.search(r"API\s+(http://\S+)", line)
            self.api = found.group(1) if found else self.api
            named = re.search(r"node\s+(\S+) on ", line)
            self.id = named.group(1) if named else self.id

    async def _forward_log(self) -> None:
        """Print the node's warnings and errors."""
        while line := await self._stream.readline():
            text = line.decode(errors="replace")
            if " warning " in text or " error " in text:
                print(f"  node: {text.rstrip()}", file=sys.stderr)

    @property
    def _stream(self) -> asyncio.StreamReader:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout

    def processes(self) -> dict[str, psutil.Process]:
        """Every process of the node, by its role: daemon, server, witness, worker, worker 2 …"""
        assert self._process is not None
        daemon = psutil.Process(self._process.pid)
        named: dict[str, psutil.Process] = {"daemon": daemon}
        counts: dict[str, int] = {}
        for child in daemon.children(recursive=True):
            name = role(child.cmdline())
            counts[name] = counts.get(name, 0) + 1
            named[name if counts[name] == 1 else f"{name} {counts[name]}"] = child
        return named

    def memory_mb(self) -> dict[str, float]:
        """PSS of each of its processes, MiB."""
        return {name: round(pss_mb(process.pid), 1) for name, process in self.processes().items()}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each of its processes so far."""
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes().items()}


def role(command: list[str]) -> str:
    """The role of a child process of a node, by its command line."""
    line = " ".join(command)
    if "witness" in line:
        return "witness"
    if "nats-server" in line:
        return "server"
    # The guard, a shell that waits on a pipe, ends the workers should the daemon be killed.
    return "worker" if "node.executor.worker_main" in line else "guard"
