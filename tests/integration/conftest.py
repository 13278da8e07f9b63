"""A real nats-server for tests, on a free port of 127.0.0.1, with JetStream and a system account; and a REST bridge."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mesh.bus.client import Bus
from mesh.bus.streams import declare_streams
from mesh.config import LOCAL
from tests.integration.api_harness import Client, Memory, bridge
from tests.ports import free_port

CONFIG = """
listen: "127.0.0.1:{port}"
server_name: "{name}"
server_tags: ["voter"]
jetstream {{ store_dir: "{folder}/js", max_file_store: 64GB }}
accounts {{
  SYS {{ users: [{{ user: sys, password: sys }}] }}
  MESH {{ jetstream: enabled, users: [{{ user: mesh, password: mesh }}] }}
}}
system_account: SYS
no_auth_user: mesh
"""


class BusServer:
    """One nats-server process; `url` is its address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url, self._process = folder, "", None
        self._buses: list[Bus] = []

    async def start(self) -> None:
        """Start the server, on the port of its last run if there was one."""
        port = self.url.rpartition(":")[2] or free_port()
        config = self.folder / "server.conf"
        config.write_text(CONFIG.format(port=port, name="test", folder=self.folder))
        binary = os.environ.get("NATS_SERVER") or str(Path(sys.executable).parent / "nats-server")
        for old in self.folder.glob("*.ports"):
            old.unlink()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [binary, "-c", str(config), "--ports_file_dir", str(self.folder)],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        async with asyncio.timeout(10):
            while True:
                for ports in self.folder.glob("*.ports"):
                    text = ports.read_text()
                    if text.endswith("}"):
                        self.url = json.loads(text)["nats"][0]
                        return
                await asyncio.sleep(0.01)

    async def connect(self, name: str, **options: str) -> Bus:
        """A connection that is closed after the test."""
        bus = await Bus.connect([self.url], name=name, config=LOCAL, **options)
        self._buses.append(bus)
        return bus

    async def system(self) -> Bus:
        """A connection to the system account; the caller closes it."""
        return await Bus.connect([self.url], name="system", config=LOCAL, user="sys", password="sys")

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    async def close(self) -> None:
        """Close all connections and end the process."""
        for bus in self._buses:
            await bus.close()
        self.kill()


@pytest.fixture
async def bus_server(tmp_path: Path) -> AsyncIterator[BusServer]:
    """A server with the mesh's streams declared."""
    server = BusServer(tmp_path)
    await server.start()
    try:
        bus = await server.connect("declare")
        await declare_streams(bus, LOCAL, free_bytes=4 << 30)
        yield server
    finally:
        await server.close()


@pytest.fixture
def memory() -> Memory:
    """The services of a bridge, over dictionaries."""
    return Memory()


@pytest.fixture
async def api(memory: Memory) -> AsyncIterator[Client]:
    """A client of a bridge whose services are `memory`."""
    async with bridge(memory) as client:
        yield client


@pytest.fixture
def eventually() -> Callable[..., object]:
    """`await eventually(condition, within_s=…)` polls until the condition holds, for at most `within_s`."""

    async def wait(condition: Callable[[], object], within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)

    return wait
