"""The scaler on a real bus, with simulated machines: nodes that join, work, and leave when they are ordered to.

`kill()` ends a controller as the death of its leader would: at any point, with nothing cleaned up.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mesh import subjects
from mesh.bus.client import Bus, Message
from mesh.capacity import TOKEN_LABEL, LeaveOrder
from mesh.client import Mesh
from mesh.config import LOCAL
from mesh.coordination import MeshEvent
from mesh.errors import QueztlError
from mesh.kinds.base import Resources
from mesh.membership.member import Member
from mesh.messages import Capabilities, Heartbeat, KindInfo, NodeRecord
from scaling.controller import Controller
from scaling.forecast.loop import COMMAND
from scaling.observation.mesh_access import MeshAccess
from scaling.providers.base import Instance, Provider
from scaling.providers.fake import FakeProvider
from scaling.state import settings as policy
from scaling.state.store import Store
from tests.nodes import eventually

log = logging.getLogger("queztl.test")
MESH_ID = "mtest"
#: Short limits, so that tests reach them.
QUICK: dict[str, Any] = {
    "decide_every_s": 0.05, "call_timeout_s": 1.0, "settle_s": 1.0, "join_within_s": 2.0, "down_window_s": 0.2,
    "min_life_s": 0.0, "to_zero_after_s": 0.5, "load_window_s": 0.5, "providers": ["fake"], "down_votes": 2,
}  # fmt: skip
WITHIN_S = 30.0


def member(node: str, token: str = "", state: str = "up", running: int = 0, kinds: Sequence[str] = ("echo",)) -> Member:
    """A node of one slot."""
    able = Capabilities(kinds=tuple(KindInfo(kind, True) for kind in kinds))
    labels = {TOKEN_LABEL: token} if token else {}
    record = NodeRecord(id=node, name=node, incarnation="1", labels=labels, capabilities=able)
    return Member(record, state, Heartbeat(node=node, incarnation="1", seq=1, running=running))


@dataclass
class Machines:
    """The nodes of the mesh, as its leader sees them."""

    members: dict[str, Member] = field(default_factory=dict)
    joins: bool = True
    """Whether started nodes join."""
    obeys: bool = True
    """Whether nodes that are ordered to leave do so."""
    providers: dict[str, FakeProvider] = field(default_factory=dict)
    leave_orders: list[tuple[str, int]] = field(default_factory=list)
    """(node, fence) of each leave order that arrived"""
    fence: int = 1
    """The fence of the current leader."""
    peak: int = 0

    def provider(self, name: str = "fake", **options: Any) -> FakeProvider:
        """A provider whose machines join this mesh."""
        made = FakeProvider(name=name, clock=time.time, on_launch=self._launched, on_terminate=self._ended, **options)
        self.providers[name] = made
        return made

    def _launched(self, instance: Instance) -> None:
        if self.joins:
            self.members[instance.id] = member(instance.id, instance.token)
        self.peak = max(self.peak, sum(len(provider.running) for provider in self.providers.values()))

    def _ended(self, instance: Instance) -> None:
        self.members.pop(instance.id, None)

    def on_leave(self, message: Message) -> None:
        """A node gets a leave order: it leaves, and its machine ends."""
        node, order = message.subject.split(".")[1], msgspec.msgpack.decode(message.data, type=LeaveOrder)
        self.leave_orders.append((node, order.fence))
        if self.obeys and self.members.pop(node, None) is not None:
            for provider in self.providers.values():
                provider.running.pop(node, None)

    @property
    def started(self) -> int:
        """Machines that run now."""
        return sum(len(provider.running) for provider in self.providers.values())


@dataclass
class Scene:
    """A mesh with one unmanaged node, and the nodes that the scaler starts."""

    bus: Bus
    server: Any
    machines: Machines
    store: Store
    controllers: list[asyncio.Task[None]] = field(default_factory=list)
    number: int = 0

    async def settings(self, **settings: Any) -> None:
        """Put a policy in force: QUICK with these settings."""
        before = await self.store.policy()
        after = policy.changed(before or policy.Policy(), QUICK | settings, True, policy.BY_HAND, "me", time.time())
        await self.store.put_policy(before, after)

    async def elect(
        self,
        confirm: Callable[[int], Any] | None = None,
        has_key: bool = False,
        make_clock: Callable[[], Callable[[], float]] | None = None,
        forecast_command: Sequence[str] = COMMAND,
    ) -> int:
        """Make another node the leader, which runs its scaler; returns its fence. `confirm(fence)` may hang."""
        self.machines.fence += 1
        fence, bus = self.machines.fence, await self.server.connect(f"leader {self.machines.fence}")

        async def confirm_term() -> int:
            if confirm is not None:
                await confirm(fence)
            return fence if self.machines.fence == fence else 0

        providers: dict[str, Provider] = dict(self.machines.providers)
        access = MeshAccess(
            bus, "person", MESH_ID, "test", lambda: tuple(self.machines.members.values()), confirm_term,
            lambda: (self.server.url,), {"echo": Resources()}, providers, has_key,
        )  # fmt: skip
        controller = Controller(access, make_clock, forecast_command)

        async def keep() -> None:
            while True:  # as `mesh/leader/leader.py` does
                try:
                    await controller.run(fence)
                except QueztlError as error:
                    log.info("the controller restarts: %s", error.message)
                except Exception:
                    log.exception("the controller failed and restarts")
                await asyncio.sleep(0.05)

        self.controllers.append(asyncio.create_task(keep(), name=f"controller {fence}"))
        return fence

    async def kill(self) -> None:
        """End all controllers, as when the leader dies."""
        for task in self.controllers:
            task.cancel()
        await asyncio.gather(*self.controllers, return_exceptions=True)
        self.controllers.clear()

    async def submit(self, count: int) -> None:
        """Submit this many tasks, which stay queued."""
        async with Mesh(bus=self.bus, config=LOCAL) as mesh:
            for _ in range(count):
                await mesh.start("echo", {"value": 1})

    async def work_off(self) -> None:
        """Remove all queued work."""
        await self.bus.api(f"STREAM.PURGE.{subjects.WORK}")

    async def until(self, condition: Callable[[], object], why: str) -> None:
        """Poll until the condition holds."""

        async def looked() -> object:
            return condition()

        await eventually(looked, WITHIN_S, lambda: f"{why}; there are {self.machines.started} machines")

    async def cycles(self, count: int) -> None:
        """Wait until the leader has reported this many more control cycles."""
        reported = 0
        done = asyncio.Event()

        def on_status(key: str) -> None:
            nonlocal reported
            reported += key == subjects.SCALING_STATUS
            if reported >= count:
                done.set()

        watch = await self.store.kv.watch(on_status)
        async with asyncio.timeout(WITHIN_S):
            await done.wait()
        await watch.close()

    async def happened(self) -> list[tuple[str, dict[str, Any]]]:
        """The events of the scaler in the journal, in order."""
        info = await self.bus.api(f"STREAM.INFO.{subjects.EVENTS}")
        found = []
        for sequence in range(1, info["state"]["last_seq"] + 1):
            answer = await self.bus.api(f"STREAM.MSG.GET.{subjects.EVENTS}", {"seq": sequence})
            event = decoded(answer)
            if event.type.startswith("scaling."):
                found.append((event.type.removeprefix("scaling."), event.detail))
        return found

    async def count(self, what: str) -> int:
        """The number of such events."""
        return sum(name == what for name, _ in await self.happened())


def decoded(answer: dict[str, Any]) -> Any:
    """Decode the event in an answer of the bus."""
    return msgspec.msgpack.decode(base64.b64decode(answer["message"]["data"]), type=MeshEvent)


async def make_scene(server: Any) -> Scene:
    """A mesh of one unmanaged node, and a provider called fake."""
    bus = await server.connect("scene")
    machines = Machines({"person": member("person")})
    machines.provider()
    await bus.subscribe("node.*.leave", machines.on_leave)
    return Scene(bus, server, machines, Store(bus))


def draining(node: Member) -> Member:
    """The same node in state draining."""
    assert node.heartbeat is not None
    return Member(node.record, "draining", msgspec.structs.replace(node.heartbeat, state="draining"))
