"""Whole nodes as processes, for tests that kill, freeze and cut them off.

`async with Cluster(folder) as cluster:` ends everything that was started, whatever happened. Signals go only to
processes that this file started and to their descendants. Each cluster is a mesh on loopback with a name of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec
import psutil

from mesh import subjects
from mesh.bus.client import Bus
from mesh.client import Mesh
from mesh.coordination import Lease
from mesh.messages import NodeRecord
from tests.ports import free_port

READY_WITHIN_S = 60.0
LEAVE_WITHIN_S = 40.0
ROOT = Path(__file__).parent.parent


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float, why: Callable[[], str] | str) -> None:
    """Poll until `condition` holds, for at most `within_s`. Raises: AssertionError with `why`."""
    deadline = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {why if isinstance(why, str) else why()}")
        await asyncio.sleep(0.05)


@dataclass
class NodeProcess:
    """One `python -m node`, its workers, and the bus server if it hosts one."""

    name: str
    folder: Path
    arguments: tuple[str, ...]
    api: str
    command: tuple[str, ...] = (sys.executable, "-m", "node")
    id: str = ""
    banner: str = ""
    _process: asyncio.subprocess.Process | None = None
    _frozen: list[psutil.Process] = field(default_factory=list)
    _reader: asyncio.Task[None] | None = None

    async def start(self) -> NodeProcess:
        """Return once the node has printed its banner. Raises: AssertionError with its log when it does not."""
        self.folder.mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUEZTL_")}
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command, "--data", str(self.folder), *self.arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
                cwd=ROOT, env=environment, start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                self.banner = await self._read_banner()
        except TimeoutError:
            raise AssertionError(f"{self.name} printed no banner:\n{self.log()}") from None
        found = re.search(r"^  node +(\S+) on", self.banner, re.MULTILINE)
        assert found, f"{self.name} did not start:\n{self.banner}\n{self.log()}"
        self.id = found.group(1)
        self._reader = asyncio.create_task(self._drain_output(), name=f"output of {self.name}")
        return self

    async def _read_banner(self) -> str:
        assert self._process and self._process.stdout
        lines = []
        async for line in self._process.stdout:
            lines.append(line.decode())
            if line.startswith(b"Ctrl-C"):
                break
        return "".join(lines)

    async def _drain_output(self) -> None:
        assert self._process and self._process.stdout
        while await self._process.stdout.read(65536):
            pass

    # --- state --------------------------------------------------------------------------------------
    @property
    def log_file(self) -> Path:
        """The stderr of all its runs."""
        return self.folder.with_suffix(".log")

    def log(self, last_bytes: int = 20_000) -> str:
        """The last part of its log."""
        return self.log_file.read_bytes()[-last_bytes:].decode(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        """The pid of its daemon."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its daemon is running."""
        return self._process is not None and self._process.returncode is None

    def processes(self, with_bus: bool = True) -> list[psutil.Process]:
        """The daemon, first, and all its descendants."""
        try:
            daemon = psutil.Process(self.pid)
            family = [daemon, *daemon.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        return [process for process in family if with_bus or not _is_bus(process)]

    def bus_process(self) -> psutil.Process | None:
        """The nats-server with the streams, if this node runs it now."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if _is_bus(process) and any(part.endswith("server.conf") for part in process.cmdline()):
                    return process
        return None

    @property
    def hosts_bus(self) -> bool:
        """Whether its data folder holds a bus that was created."""
        return (self.folder / "bus" / "founded.json").exists()

    # --- faults and control -------------------------------------------------------------------------
    async def kill9(self) -> float:
        """Send SIGKILL to the whole node at once; returns the Unix time just before."""
        family = self.processes()
        at = time.time()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self._ended()
        return at

    def freeze(self) -> float:
        """Send SIGSTOP to the whole node; returns the Unix time just before."""
        self._frozen = self.processes()
        at = time.time()
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        return at

    def thaw(self) -> None:
        """Send SIGCONT to all processes that `freeze` stopped."""
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    async def terminate(self) -> int:
        """Send SIGTERM and wait until the node has left in order; returns its exit code."""
        self.send(signal.SIGTERM)
        assert self._process is not None
        async with asyncio.timeout(LEAVE_WITHIN_S):
            await self._process.wait()
        await self._ended()
        return int(self._process.returncode or 0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the daemon alone."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _ended(self) -> None:
        assert self._process is not None
        await self._process.wait()
        if self._reader is not None:
            await self._reader
            self._reader = None

    async def close(self) -> None:
        """End the node, whatever state it is in."""
        if self.running:
            self.thaw()
            await self.kill9()


def _is_bus(process: psutil.Process) -> bool:
    try:
        return process.name() == "nats-server"
    except psutil.Error:
        return False


class Cluster:
    """The nodes of one mesh: the first one started creates the bus, on `bus_port`."""

    def __init__(self, folder: Path, interface: str = "lo") -> None:
        self.folder, self.mesh_name, self.interface = folder, f"t{secrets.token_hex(5)}", interface
        self.bus_port = free_port()
        self.nodes: list[NodeProcess] = []
        self._meshes: list[Mesh] = []

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for mesh in self._meshes:
            await mesh.close()
        for node in self.nodes:
            await node.close()

    def print_logs(self) -> None:
        """Print all logs: pytest shows them only when the test fails."""
        for node in self.nodes:
            print(f"--- {node.name} ({node.id}) ---\n{node.log()}")

    @property
    def url(self) -> str:
        """The URL of the bus."""
        return f"nats://127.0.0.1:{self.bus_port}"

    def node(self, *arguments: str, slots: int = 2, fault_kinds: bool = True) -> NodeProcess:
        """Add a node, not started yet."""
        name = f"node{len(self.nodes) + 1}"
        api = f"127.0.0.1:{free_port()}"
        flags = ["--interface", self.interface, "--mesh", self.mesh_name, "--api", api, "--slots", str(slots)]
        # Only the node that creates the mesh hosts a bus, on this port.
        flags += ["--log-level", "debug", "--bus-port", str(self.bus_port), "--measure-after", "0"]
        flags += ["--fault-kinds"] * fault_kinds
        made = NodeProcess(name, self.folder / name, (*flags, *arguments), f"http://{api}")
        self.nodes.append(made)
        return made

    async def start(self, *slots: int) -> list[NodeProcess]:
        """Start one node for each number of slots; the first one creates the mesh and hosts the bus."""
        nodes = [self.node(slots=number) for number in slots]
        await nodes[0].start()
        await asyncio.gather(*(node.start() for node in nodes[1:]))
        return nodes

    async def client(self, url: str = "") -> Mesh:
        """A client with a connection of its own, to `url` or to the bus; closed with the cluster."""
        mesh = Mesh(url or self.url)
        self._meshes.append(mesh)
        await mesh.connect()
        return mesh

    def by_id(self, node: str) -> NodeProcess:
        """The node with that id."""
        return next(process for process in self.nodes if process.id == node)

    async def leader_other_than(self, bus: Bus, *not_these: NodeProcess, within_s: float = 15.0) -> NodeProcess:
        """The leader, as soon as it is none of `not_these`."""
        changed = asyncio.Event()
        watch = await bus.kv(subjects.KV_LEASE).watch(lambda _: changed.set())
        try:
            async with asyncio.timeout(within_s):
                while True:
                    changed.clear()
                    held = await lease(bus)
                    if held is not None and held.node not in {node.id for node in not_these}:
                        return self.by_id(held.node)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await changed.wait()
        except TimeoutError:
            raise AssertionError(f"no other leader than {[node.name for node in not_these]}") from None
        finally:
            await watch.close()

    async def hand_over_from_host(self, mesh: Mesh) -> NodeProcess:
        """Restart the bus host in order, so that another node becomes leader; returns the leader."""
        host = self.nodes[0]
        assert await host.terminate() == 0, host.log()
        await host.start()
        return await self.leader_other_than(mesh.bus, host)


async def lease(bus: Bus) -> Lease | None:
    """Who holds the lease now."""
    entry = await bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY)
    return msgspec.msgpack.decode(entry.value, type=Lease) if entry is not None else None


async def records(bus: Bus) -> dict[str, NodeRecord]:
    """Node id -> its record."""
    return {
        entry.key: msgspec.msgpack.decode(entry.value, type=NodeRecord)
        for entry in await bus.kv(subjects.KV_NODES).entries()
    }
