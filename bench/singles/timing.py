"""Wall clock and CPU time of processes that run together."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from dataclasses import dataclass

from bench.harness.measure import BenchFailed
from node.executor.limits import NICENESS

WITHIN_S = 600.0


@dataclass(frozen=True)
class Took:
    """What a run took."""

    wall_s: float
    cpu_s: float
    """User and system time of the processes that were started, and of their children."""


async def timed(commands: list[list[str]], nice: bool = False) -> Took:
    """Start `commands` together and wait until all have ended. `nice`: with the niceness of a worker, so that another
    load slows both alike.

    Raises: BenchFailed when one fails.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    processes = [
        await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_be_nice if nice else None,
        )
        for command in commands
    ]
    try:
        async with asyncio.timeout(WITHIN_S):
            texts = [(await process.communicate())[1] for process in processes]
    except BaseException as error:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if isinstance(error, TimeoutError):
            raise BenchFailed(f"{' '.join(commands[0][:4])} … has not ended within {WITHIN_S:g} s") from None
        raise
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    for command, process, text in zip(commands, processes, texts, strict=True):
        if process.returncode:
            raise BenchFailed(f"{' '.join(command[:4])} … failed: {text.decode(errors='replace').strip()[-500:]}")
    return Took(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _be_nice() -> None:
    os.nice(NICENESS)
