"""Child processes that start others end as a whole, whenever that is asked."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import psutil
import pytest

from mesh import child_process
from tests.nodes import eventually

#: A process that starts another one, which keeps its pipes.
PARENT = ("sh", "-c", "sleep 600 & echo started; wait")


def sleepers() -> list[psutil.Process]:
    """The processes of PARENT that live, reaped or not by their parent."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[-2:] in (["sleep", "600"], list(PARENT[1:]))
        and process.status() != psutil.STATUS_ZOMBIE
    ]


async def all_gone() -> bool:
    return not sleepers()


async def test_a_kill_ends_what_the_process_has_started() -> None:
    process = await child_process.start(*PARENT, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    child_process.kill(process)
    async with asyncio.timeout(10):
        assert await process.wait() == -9
    await eventually(all_gone, 10, "everything has ended")
    child_process.kill(process)  # nothing is left to kill, and nothing is raised


@pytest.mark.parametrize("turns", range(4))
async def test_a_start_that_is_cancelled_leaves_nothing_behind(turns: int) -> None:
    """asyncio itself waits for ever for a pipe that the grandchild keeps open."""
    starting = asyncio.create_task(child_process.start(*PARENT, stdout=PIPE, stderr=PIPE))
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait({starting})
    assert starting.cancelled()
    await eventually(all_gone, 10, "everything has ended")


async def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        await child_process.start("/no-such-program", sys.executable)
