"""Machines on a network of their own: network namespaces with a card each, on a switch whose cables can be pulled."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

COUNT = 3
_CLONE_NEWNET = 0x40000000


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def lan() -> Iterator[list[str]]:
    """Three machines; see `machines`."""
    yield from machines(COUNT)


@pytest.fixture
def office() -> Iterator[list[str]]:
    """Five machines for nodes and, the last, one for the client."""
    yield from machines(6)


def machines(count: int) -> Iterator[list[str]]:
    """Names of namespaces, each with a card eth0 (10.77.0.n) on a switch of their own; or skipped, and why."""
    if sys.platform != "linux" or shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("needs Linux with ip and nsenter")
    mark = f"qz{os.getpid()}"
    switch, names = f"{mark}s", [f"{mark}n{number}" for number in range(1, count + 1)]
    with contextlib.ExitStack() as undo:
        try:
            for name in (switch, *names):
                ip("netns", "add", name)
                undo.callback(ip, "netns", "del", name)
            ip("-n", switch, "link", "add", "switch", "type", "bridge")
            ip("-n", switch, "link", "set", "switch", "up")
            for number, name in enumerate(names, 1):
                port = f"port{number}"
                ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("-n", switch, "link", "set", port, "master", "switch", "up")
                ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no right to make network namespaces here ({error.stderr.strip()})")
        yield names


def inside(machine: str, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on that machine: in a thread that is on its network, as are the processes that it starts."""

    def run() -> None:
        with Path(f"/run/netns/{machine}").open() as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        asyncio.run(work)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()


def cable(machine: str, plugged: bool) -> None:
    """Pull the cable of a machine, or plug it in again."""
    mark, _, number = machine.rpartition("n")
    ip("-n", f"{mark}s", "link", "set", f"port{number}", "up" if plugged else "down")
