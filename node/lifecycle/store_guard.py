"""Guards the store of the bus server that this node hosts: reports its health, and has it restarted one at a time.

`mesh/bus/server/health_monitor.py` decides; here is what needs the mesh: the report to all nodes, and the turn. The
restart of a server that still serves may cost the bus its majority, so such a server waits for its turn: a key that one
node holds at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence

from mesh import subjects
from mesh.bus.client import Bus, Message
from mesh.bus.server.hang_watch import HangWatch, Peer
from mesh.bus.server.health_monitor import Health, HealthMonitor
from mesh.bus.server.supervisor import BusServer
from mesh.cluster.restart_turn import TURN_S, take_turn
from mesh.coordination import DiskAnswer, ServerRecord, StoreReport
from mesh.errors import QueztlError
from mesh.messages import encode

log = logging.getLogger(__name__)

#: Without a majority nobody can take a turn, and a restart costs nothing that is still there. It may be an election, so
#: a server waits this long first, seconds.
NO_TURN_S = 30.0
#: How soon a server that was started or stopped is noticed, seconds.
NOTICE_S = 1.0


class StoreGuard:
    """`run()` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        node: str,
        machine: str,
        server: Callable[[], BusServer | None],
        servers: Callable[[], Sequence[ServerRecord]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`server()`: the bus server that runs here; `servers()`: those of the mesh."""
        self._bus, self._node, self._machine = bus, node, machine
        self._server, self._servers, self._clock = server, servers, clock
        self._reported = False
        self.health = Health()
        """What the last look at the server found."""
        self._no_turn_since: float | None = None

    async def run(self) -> None:
        """Watch whichever server runs here. Raises: BusUnavailable, when it can't listen for questions."""
        await self._bus.subscribe(subjects.disk(self._node), self._on_question)
        while True:
            server = self._server()
            if server is not None:
                await self._watch(server)
            await asyncio.sleep(NOTICE_S)

    async def _watch(self, server: BusServer) -> None:
        """Watch `server` until this node hosts another one, or none."""
        monitor = HealthMonitor(server, self._on_health, self._may_restart, self._clock)
        watching = asyncio.create_task(monitor.run(), name="bus health")
        hang_watch = HangWatch(server, self._peers)
        hang_watch.start()
        try:
            done = False
            while self._server() is server and not done:
                done = bool((await asyncio.wait({watching}, timeout=NOTICE_S))[0])
            if done:
                watching.result()
        finally:
            hang_watch.close()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _peers(self) -> tuple[Peer, ...]:
        others = (record for record in self._servers() if record.node != self._node)
        return tuple(Peer(record.node, record.client_urls) for record in others)

    def _on_question(self, message: Message) -> None:
        server = self._server()
        if message.reply and server is not None:
            ago_s = server.disk.wrote_ago_s
            answer = DiskAnswer(node=self._node, wrote_ago_s=ago_s if math.isfinite(ago_s) else -1.0)
            self._bus.send(message.reply, encode(answer))

    def _on_health(self, health: Health) -> None:
        self.health = health
        wrong = bool(health.says or health.lost)
        if not wrong and not self._reported:
            return
        report = StoreReport(
            node=self._node, name=self._machine, servers=max(1, len(self._servers())), stores=health.stores,
            is_full=health.is_full, says=health.says, lost=dict(health.lost),
        )  # fmt: skip
        if self._bus.connected:
            with contextlib.suppress(QueztlError):
                self._bus.send(subjects.store_report(self._node), encode(report))
                self._reported = wrong

    async def _may_restart(self, serves_nothing: bool) -> bool:
        if serves_nothing or len(self._servers()) <= 1:
            return True
        try:
            if await take_turn(self._bus, self._node):
                self._no_turn_since = None
                return True
            log.info("another bus server was restarted less than %d s ago; this one waits", TURN_S)
        except QueztlError as error:
            now = self._clock()
            self._no_turn_since = self._no_turn_since or now
            log.info("no turn to restart the bus server can be taken: %s", error.message)
            if now - self._no_turn_since >= NO_TURN_S:
                self._no_turn_since = None
                return True
        return False
