"""`queztl` as a process, the way people run it, for tests of the command line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("queztl"))
WITHIN_S = 180.0


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one document. Raises: ValueError when stdout holds anything else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its documents, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(url: str = "") -> dict[str, str]:
    """The environment of a shell that knows no node except the one at `url`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("QUEZTL_")}
    return clean | {"QUEZTL_INTERFACE": "lo"} | ({"QUEZTL_URL": url} if url else {})


async def start(*arguments: object, url: str = "", cwd: Path | None = None) -> asyncio.subprocess.Process:
    """Start a command with its output in pipes; the caller ends it."""
    return await asyncio.create_subprocess_exec(
        COMMAND, *map(str, arguments), env=environment(url), cwd=cwd,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def queztl(*arguments: object, url: str = "", text: str = "", cwd: Path | None = None) -> Ran:
    """Run a command to its end with `text` on stdin. Raises: AssertionError when it prints a traceback or hangs."""
    process = await start(*arguments, url=url, cwd=cwd)
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate(text.encode())
    except TimeoutError:
        raise AssertionError(f"queztl {' '.join(map(str, arguments))} has not ended") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    ran = Ran(int(process.returncode or 0), out.decode(), err.decode())
    assert "Traceback" not in ran.out + ran.err, ran.err
    return ran
