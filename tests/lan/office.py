"""Five machines on a network of their own, a mesh that has grown to three bus servers, and a client.

A scenario is: 1,000 tasks in flight, a fault, and the invariants. What is measured: how long a submission stalled at
most, and how many tasks ran twice. Each scenario prints one line of the table in docs/resilience.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from mesh.bus.client import Bus
from mesh.bus.server.config import SYSTEM_USER
from mesh.client import Mesh
from mesh.cluster import raft_meta
from mesh.cluster.controller import read_servers
from mesh.cluster.replicas import Held, Replicas, read_held
from mesh.errors import QueztlError
from mesh.messages import decode_any
from mesh.subjects import host_of
from tests import invariants
from tests.faults.mixed import echoed
from tests.invariants import Expected, Witness
from tests.lan.conftest import ip
from tests.nodes import Cluster, NodeProcess, eventually

TASKS = 1000
GROWN_WITHIN_S = 60.0
#: A server that was cut off while it led undoes its uncommitted entries, one in 1 to 3 s each, or is sent the
#: next snapshot of the new leader: nats-server writes it every 2 to 3 minutes, and later while copies catch up.
HEALED_WITHIN_S = 300.0
#: Seconds a task takes: 1,000 of them are in flight for fifteen seconds on ten slots.
SLEEP_S = 0.15


class Office(Cluster):
    """A cluster whose nodes are on machines of their own, and find each other by multicast."""

    def __init__(self, folder: Path, machines: list[str]) -> None:
        super().__init__(folder, interface="eth0")
        self.machines, self.client_machine = machines[:-1], machines[-1]
        self.subnet = "10.77.0"

    @property
    def url(self) -> str:
        numbers = range(1, len(self.machines) + 1)
        return ",".join(f"nats://{self.subnet}.{number}:{self.bus_port}" for number in numbers)

    def renumber(self, subnet: str) -> None:
        """Give every machine an address of that subnet instead of its own; the client's machine gets one more."""
        for number, machine in enumerate(self.machines, 1):
            ip("-n", machine, "addr", "del", f"{self.subnet}.{number}/24", "dev", "eth0")
            ip("-n", machine, "addr", "add", f"{subnet}.{number}/24", "dev", "eth0")
        ip("-n", self.client_machine, "addr", "add", f"{subnet}.200/24", "dev", "eth0")
        self.subnet = subnet

    def node_on(self, machine: str, *arguments: str, slots: int = 2) -> NodeProcess:
        """One more node, on that machine, not started yet."""
        node = self.node("--preset", "local", *arguments, slots=slots)
        node.command = ("nsenter", f"--net=/run/netns/{machine}", sys.executable, "-m", "node")
        return node

    async def start_all(self, small: Path | None = None) -> None:
        """One node a machine, all started at once; one with a folder of its own (`small`) first."""
        nodes = [self.node_on(machine) for machine in self.machines]
        if small is not None:
            nodes[0].folder = small / "node"
            await nodes[0].start()
            nodes = nodes[1:]
        await asyncio.gather(*(node.start() for node in nodes))

    def machine_of(self, node: NodeProcess) -> str:
        return self.machines[self.nodes.index(node)]


class Scene:
    """A mesh, a client, a witness, and a pulse: submissions one after the other, timed."""

    def __init__(self, office: Office, mesh: Mesh, witness: Witness) -> None:
        self.office, self.mesh, self.witness = office, mesh, witness
        self.accepted: dict[str, Expected] = {}
        self.stall_s = 0.0
        self._submitted = 0
        self._system: Bus | None = None
        self._copies = Replicas()

    @property
    def bus(self) -> Bus:
        return self.mesh.bus

    async def system(self) -> Bus:
        """A connection to the servers' own account."""
        if self._system is None:
            entry = await self.bus.kv("mesh").get("identity")
            assert entry is not None
            password = f"open-{decode_any(entry.value)['id']}"
            urls = self.office.url.split(",")
            self._system = await Bus.connect(urls, name="test", user=SYSTEM_USER, password=password)
        return self._system

    async def close(self) -> None:
        if self._system is not None:
            await self._system.close()
            self._system = None

    async def moved(self) -> None:
        """Connect to the new addresses of the bus."""
        await self.close()
        self.mesh.bus.learn(self.office.url.split(","))

    # --- state of the bus -----------------------------------------------------------------------
    async def look(self) -> tuple[dict[str, raft_meta.Group], Held]:
        """The meta group, and what it holds of each stream, as each server reports it itself."""
        names = [server.name for server in await read_servers(self.bus)]
        answers = await raft_meta.ask_all(await self.system(), streams=True, known=names)
        return raft_meta.read_groups(answers, names), read_held(answers)

    async def unsafe(self, servers: int = 3) -> str:
        """What is missing before so many servers, all there, hold a copy of every stream; "" when nothing is."""
        try:
            groups, held = await self.look()
            streams = self._copies.judge(await raft_meta.list_streams(self.bus), held)
        except QueztlError as error:
            return str(error)
        group = raft_meta.leaders_view(groups)
        if group is None or not all(group.members.values()):
            return f"the group is {group}: {raft_meta.no_leader_reason(groups)}"
        sizes = {name: (group.size, len(group.members)) for name, group in groups.items()}
        if sizes != dict.fromkeys(group.members, (servers, servers)):
            return f"group size and members by server: {sizes}"
        thin = [
            stream
            for stream in streams
            if not len(stream.current) == servers == stream.replicas == len(held[stream.name])
        ]
        return "; ".join(
            f"{stream.name}: {stream.replicas} copies, led by {stream.leader or 'nobody'}, current on "
            f"{sorted(stream.current)} of {sorted(stream.members)}"
            for stream in thin
        )

    async def until_safe(self, servers: int = 3, within_s: float = HEALED_WITHIN_S) -> float:
        """Wait for that; how long it took, seconds."""
        began, missing = time.monotonic(), ""

        async def safe() -> bool:
            nonlocal missing
            missing = await self.unsafe(servers)
            return not missing

        await eventually(safe, within_s, lambda: f"{servers} servers with a copy of everything: {missing}")
        took_s = time.monotonic() - began
        print(f"{servers} servers with a copy of everything after {took_s:.0f} s more", flush=True)
        return took_s

    async def leads(self) -> NodeProcess:
        """The node whose bus server leads the meta group."""
        groups, _ = await self.look()
        group = raft_meta.leaders_view(groups)
        assert group is not None, raft_meta.no_leader_reason(groups)
        return self.office.by_id(host_of(group.leader))

    async def voters(self) -> list[NodeProcess]:
        """The nodes that run a bus server."""
        return [self.office.by_id(server.node) for server in await read_servers(self.bus)]

    # --- work ---------------------------------------------------------------------------------------
    async def submit(self, count: int = TASKS) -> None:
        """Tasks in flight; each is durable when this returns."""
        for _ in range(count):
            await self._submit_one(SLEEP_S)

    async def _submit_one(self, sleep_s: float) -> float:
        """Submit one task, asking again under the same key until it is accepted; how long that took, seconds."""
        self._submitted += 1
        value, began = self._submitted, time.monotonic()
        while True:
            try:
                payload = {"value": value, "sleep_s": sleep_s}
                handle = await self.mesh.start("echo", payload, idempotency_key=f"k{self.mesh.name}{value}")
                break
            except QueztlError as error:
                assert time.monotonic() - began < 120, f"not accepted for two minutes: {error}"
                await asyncio.sleep(0.05)
        self.accepted[handle.id] = echoed(value)
        return time.monotonic() - began

    @contextlib.asynccontextmanager
    async def pulse(self) -> AsyncIterator[None]:
        """Submit a small task every 50 ms; the longest submission took `stall_s`."""
        self.stall_s = 0.0

        async def submit_repeatedly() -> None:
            while True:
                self.stall_s = max(self.stall_s, await self._submit_one(0.0))
                await asyncio.sleep(0.05)

        submitting = asyncio.create_task(submit_repeatedly(), name="pulse")
        try:
            yield
            # A submission under way ends: else it could be accepted without being recorded.
        finally:
            done, _ = await asyncio.wait({submitting}, timeout=0.0)
            for handle in done:
                handle.result()
            await self._end(submitting)

    async def _end(self, submitting: asyncio.Task[None]) -> None:
        submitted = self._submitted
        await eventually(lambda: _is(len(self.accepted) >= submitted or submitting.done()), 120, "a last submission")
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)

    async def scenario(self, name: str, fault: Callable[[], Awaitable[None]], within_s: float = 120.0) -> float:
        """1,000 tasks in flight, `fault`, then the invariants; the longest stall of a submission, seconds."""
        await self.submit()
        began = time.monotonic()
        async with self.pulse():
            await asyncio.sleep(1.0)
            await fault()
            await asyncio.sleep(2.0)
        await invariants.check(self.mesh, self.accepted, self.witness, within_s)
        twice = sum(len(self.witness.runs(task)) > 1 for task in self.accepted)
        took = time.monotonic() - began
        print(f"| {name} | {self.stall_s:.1f} s | {twice} of {len(self.accepted)} | 0 | {took:.0f} s |", flush=True)
        return self.stall_s


async def _is(value: object) -> object:
    return value


@contextlib.asynccontextmanager
async def grown(folder: Path, machines: list[str], small: Path | None = None) -> AsyncIterator[Scene]:
    """Five nodes started at once, and three bus servers with a copy of everything.

    `small`: the data folder of the first one, which then founds.
    """
    async with Office(folder, machines) as office:
        try:
            await office.start_all(small)
            mesh = await office.client()
            scene = Scene(office, mesh, await Witness(mesh.bus).start())
            try:
                await scene.until_safe(within_s=GROWN_WITHIN_S)
                yield scene
            finally:
                await scene.close()
        finally:
            office.print_logs()
