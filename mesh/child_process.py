"""Child processes that start others: each in a session of its own, and killed as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from mesh.niceness import lower


async def start(
    *command: str,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    niceness: int = 0,
) -> asyncio.subprocess.Process:
    """Start a process in a session of its own, with a niceness of 0 to 19.

    A start that is cancelled leaves nothing behind. Raises: OSError.
    """

    async def start_it() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=True
        )
        if niceness:
            await lower(process.pid, niceness, lambda: process.returncode is not None)
        return process

    starting = asyncio.ensure_future(start_it())
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # asyncio would kill this one process, and wait for ever for the pipes that its own children keep open.
        with contextlib.suppress(OSError):
            process = await starting
            kill(process)
            await process.wait()
        raise


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a process that `start` started, with all that it started and that stayed in its group."""
    if process.returncode is None:  # after that another process may have its pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
