"""Harness for bus servers as real processes, which tests create, restart and kill."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest
from nats.aio.client import Client

from mesh.bus.server.bootstrap_client import Admin
from mesh.bus.server.supervisor import BusServer, BusSettings
from mesh.bus.wire import Line
from mesh.membership.connections import system_password

SETTINGS = BusSettings(
    mesh_id="mtest",
    mesh_name="test",
    node_id="nfounder",
    system_password=system_password("mtest"),
    bind_host="127.0.0.1",
    client_port=0,
    store_max_bytes=1 << 30,
)
#: Runs a bus server as a node does, in a process of its own: `argv` = folder, the point to die at, settings.
NODE = """
import asyncio, json, os, signal, sys
from pathlib import Path
import psutil
from mesh.bus.server import data_dir as server_folder
from mesh.bus.server.bootstrap_client import Admin
from mesh.bus.server.supervisor import BusServer, BusSettings
from mesh.bus.server.process import ServerProcess

folder, point, settings = Path(sys.argv[1]), sys.argv[2], BusSettings(**json.loads(sys.argv[3]))

def die(here):
    if here == point:
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

launch, request, write_marker = ServerProcess.launch, Admin.request, server_folder.write_marker

async def launch_and_die(self, *arguments):
    await launch(self, *arguments)
    die(self.name + " launched")

async def request_and_die(self, subject, *arguments, **options):
    if subject.endswith("SERVER.REMOVE"):
        die("before the removal")
    answer = await request(self, subject, *arguments, **options)
    if subject.endswith("SERVER.REMOVE"):
        die("after the removal")
    return answer

def write_marker_and_die(*arguments):
    die("before the marker")
    write_marker(*arguments)
    die("after the marker")

ServerProcess.launch, Admin.request = launch_and_die, request_and_die
server_folder.write_marker = write_marker_and_die

async def main():
    bus = BusServer(folder, settings, lambda *_: None)
    await bus.start()
    print(json.dumps({"pids": bus.pids, "urls": bus.address.client_urls}), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Harness:
    """The bus servers of one test; all are stopped at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._made: list[BusServer] = []

    def bus(self, **changes: Any) -> BusServer:
        """A server object in the test's folder, not started."""
        made = BusServer(
            self.folder, replace(SETTINGS, **changes), lambda what, facts: self.events.put_nowait((what, facts))
        )
        self._made.append(made)
        return made

    @property
    def bus_urls(self) -> tuple[str, ...]:
        """Where clients find the last server."""
        return self._made[-1].address.client_urls

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for the next event of that name; returns its facts."""
        async with asyncio.timeout(20):
            while True:
                what, facts = await self.events.get()
                if what == name:
                    return facts

    async def end(self) -> None:
        """Stop all servers."""
        for made in self._made:
            await made.stop()


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    harness = Harness(tmp_path / "bus")
    yield harness
    await harness.end()


async def _ignore(error: Exception) -> None:
    """Ignore errors: these tests break connections on purpose."""


async def connect(bus: BusServer) -> Any:
    """A client of nats-py, which reconnects by itself, over the transport of the mesh: that of nats-py keeps a
    connection open on which the server died before it sent anything."""
    client = Client()
    client._transport = Line()
    await client.connect(
        list(bus.address.client_urls),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.05,
        error_cb=_ignore,
    )
    return client


async def declare(client: Any, name: str = "KEEP") -> None:
    """Declare a stream as the mesh does: on voters only."""
    body = {"name": name, "subjects": [f"{name.lower()}.>"], "storage": "file", "num_replicas": 1}
    body |= {"retention": "limits", "placement": {"tags": ["voter"]}}
    reply = await client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(body).encode(), timeout=5)
    assert "error" not in json.loads(reply.data), reply.data


async def publish(client: Any, first: int, last: int, confirmed: set[int]) -> None:
    """Store the numbers [first, last) one by one; each is repeated until the bus confirms it."""
    stream = client.jetstream(timeout=0.5)
    for number in range(first, last):
        while number not in confirmed:
            try:
                await stream.publish("keep.n", b"%d" % number, headers={"Nats-Msg-Id": str(number)})
                confirmed.add(number)
            except (nats.errors.Error, TimeoutError, OSError):
                await until(lambda: _connected(client))


async def _connected(client: Any) -> bool:
    return bool(client.is_connected)


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def stored(client: Any) -> set[int]:
    """Every number that the stream holds."""
    stream = client.jetstream(timeout=5)
    info = await stream.stream_info("KEEP")
    numbers = set()
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        numbers.add(int((await stream.get_msg("KEEP", seq=sequence)).data))
    return numbers


def lives(pid: int) -> bool:
    """Whether that process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def meta_size(bus: BusServer) -> int:
    address = bus.address
    host, port = address.local_url.removeprefix("nats://").split(":")
    admin = await Admin.open(host, int(port), address.system_user, address.system_password)
    try:
        answer = await admin.request(f"$SYS.REQ.SERVER.{admin.server_id}.JSZ", {})
        assert answer["data"]["meta_cluster"]["leader"] == address.server_name
        return int(answer["data"]["meta_cluster"]["cluster_size"])
    finally:
        await admin.close()


def run_node(folder: Path, point: str) -> subprocess.Popen[str]:
    settings = {name: value for name, value in vars(SETTINGS).items() if name != "advertise"}
    return subprocess.Popen(
        [sys.executable, "-c", NODE, str(folder), point, json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
    )
