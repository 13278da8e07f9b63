"""The processes of a swarm, from their parent: starts them, gives orders, kills or freezes them, and ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from bench.harness.measure import BenchFailed

READY_WITHIN_S = 30.0
#: Time for an answer beyond the time that the order itself may take, seconds.
ANSWER_WITHIN_S = 30.0


class SwarmProcess:
    """One process of nodes: `await start()`, then orders; `await end()` in any case."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        self.name, self._spec = name, spec
        self.ids: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._busy = asyncio.Lock()

    async def start(self) -> SwarmProcess:
        """Start it; returns when it takes orders. Raises: BenchFailed."""
        root = Path(__file__).resolve().parents[2]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUEZTL_")}
        Path(self._spec["folder"]).mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C goes to the benchmark, which ends its swarm.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "bench.swarm.process", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, cwd=root, env=environment | {"PYTHONPATH": str(root)},
            start_new_session=True, limit=1 << 26,
        )  # fmt: skip
        await self._ask(self._spec, READY_WITHIN_S)
        return self

    async def order(self, do: str, within_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Give an order that may take `within_s` seconds; returns the answer. Raises: BenchFailed."""
        order = {"do": do, **arguments} | ({"within_s": within_s} if within_s and do.startswith("until") else {})
        answer = await self._ask(order, within_s + ANSWER_WITHIN_S)
        if "failed" in answer:
            raise BenchFailed(f"{self.name}: {answer['failed']}")
        return answer

    async def _ask(self, request: dict[str, Any], within_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        async with self._busy:
            try:
                async with asyncio.timeout(within_s):
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    await process.stdin.drain()
                    line = await process.stdout.readline()
            except TimeoutError:
                raise BenchFailed(f"{self.name} did not answer within {within_s:g} s") from None
            except ConnectionError:
                line = b""
        if not line:
            raise BenchFailed(f"{self.name} has ended; its output above says why")
        return dict(json.loads(line))

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds of the process so far."""
        return sum(psutil.Process(self.pid).cpu_times()[:2])

    def send_signal(self, number: signal.Signals) -> None:
        """Kill, freeze or thaw the process."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def end(self) -> None:
        """Kill the process, also a frozen one."""
        if self._process is not None:
            self.send_signal(signal.SIGKILL)
            await self._process.wait()


class Swarm:
    """All processes of a swarm. Use as `async with Swarm(specs) as swarm`."""

    def __init__(self, specs: dict[str, dict[str, Any]]) -> None:
        self.processes = {name: SwarmProcess(name, spec) for name, spec in specs.items()}

    async def __aenter__(self) -> Swarm:
        try:
            # Exceptions are results, so that no start is still pending when the processes are ended.
            starts = (process.start() for process in self.processes.values())
            for started in await asyncio.gather(*starts, return_exceptions=True):
                if isinstance(started, BaseException):
                    raise started
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(process.end() for process in self.processes.values()))

    async def all(
        self, do: str, within_s: float = 0.0, of: Sequence[str] | None = None, **arguments: Any
    ) -> list[dict[str, Any]]:
        """Give the same order to all processes (or those of that name) at the same time; returns their answers."""
        names = self.processes if of is None else of
        return await asyncio.gather(*(self.processes[name].order(do, within_s, **arguments) for name in names))
