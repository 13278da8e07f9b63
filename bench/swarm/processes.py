"""The processes of a swarm as their parent sees them: started, told what to do, killed, frozen, and always ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.measure import BenchFailed

READY_WITHIN_S = 30.0
#: Over what an order may take by itself.
ANSWER_WITHIN_S = 30.0


class SwarmProcess:
    """One process of nodes. `await start()`, then orders; `await end()` whatever happened."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        self.name, self._spec = name, spec
        self.ids: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()

    async def start(self) -> SwarmProcess:
        """Return once it takes orders. Raises: BenchFailed."""
        root = Path(__file__).resolve().parents[2]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUEZTL_")}
        Path(self._spec["folder"]).mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C is for the bench, which ends its swarm.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "bench.swarm.process", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, cwd=root, env=environment | {"PYTHONPATH": str(root)},
            start_new_session=True, limit=1 << 26,
        )  # fmt: skip
        await self._ask(self._spec, READY_WITHIN_S)
        return self

    async def order(self, do: str, within_s: float = 0.0, **words: Any) -> dict[str, Any]:
        """Have it do something that may take `within_s`; its answer. Raises: BenchFailed."""
        order = {"do": do, **words} | ({"within_s": within_s} if within_s and do.startswith("until") else {})
        answer = await self._ask(order, within_s + ANSWER_WITHIN_S)
        if "failed" in answer:
            raise BenchFailed(f"{self.name}: {answer['failed']}")
        return answer

    async def _ask(self, words: dict[str, Any], within_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        async with self._asking:
            try:
                async with asyncio.timeout(within_s):
                    process.stdin.write(json.dumps(words).encode() + b"\n")
                    await process.stdin.drain()
                    line = await process.stdout.readline()
            except TimeoutError:
                raise BenchFailed(f"{self.name} did not answer within {within_s:g} s") from None
            except ConnectionError:
                line = b""
        if not line:
            raise BenchFailed(f"{self.name} has ended by itself; its reason is above")
        return dict(json.loads(line))

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return sum(psutil.Process(self.pid).cpu_times()[:2])

    def signal(self, number: signal.Signals) -> None:
        """Kill, freeze or thaw it."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def end(self) -> None:
        """Gone, also when it is frozen."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self._process.wait()


class Swarm:
    """All of them. Use as `async with Swarm(specs) as swarm`."""

    def __init__(self, specs: dict[str, dict[str, Any]]) -> None:
        self.processes = {name: SwarmProcess(name, spec) for name, spec in specs.items()}

    async def __aenter__(self) -> Swarm:
        try:
            # With the exceptions as results, so that nothing is still being started when they are ended.
            started = await asyncio.gather(*(one.start() for one in self.processes.values()), return_exceptions=True)
            for one in started:
                if isinstance(one, BaseException):
                    raise one
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(one.end() for one in self.processes.values()))

    async def all(
        self, do: str, within_s: float = 0.0, of: Sequence[str] | None = None, **words: Any
    ) -> list[dict[str, Any]]:
        """Give the same order to all (or those named), at the same time."""
        names = self.processes if of is None else of
        return await asyncio.gather(*(self.processes[name].order(do, within_s, **words) for name in names))
