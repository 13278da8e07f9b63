"""Publishes the node's heartbeat twice a second, and keeps its deliveries up to date while it holds tasks.

The heartbeat comes from the daemon process, which no workload can starve: workloads run in niced processes of their
own. When the event loop stood still for longer than `stall_limit_s`, other nodes may hold this node's deliveries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh import subjects
from mesh.bus.client import Bus
from mesh.errors import QueztlError
from mesh.messages import Heartbeat, encode
from mesh.supervision import every, wait_until_set
from node.probes.usage import MachineUsage
from node.work.admission import Admission
from node.work.completion import Completion
from node.work.deliveries import Deliveries

log = logging.getLogger(__name__)
#: How often held deliveries are checked, seconds: announcements and states are at most this late.
UPKEEP_EVERY_S = 0.025
#: Deliveries that have not changed for QUIET_S are checked this often, or as soon as one changes, seconds.
QUIET_S = 0.25
#: A held set is announced again this often, for a new leader, seconds.
ANNOUNCE_AGAIN_S = 1.0


class HeartbeatPublisher:
    """The heartbeat of one node, and the upkeep of its deliveries."""

    def __init__(
        self,
        bus: Bus,
        *,
        node: str,
        incarnation: str,
        slots: int,
        admission: Admission,
        completion: Completion,
        deliveries: Deliveries,
    ) -> None:
        self._bus, self._config = bus, bus.config
        self._node, self._incarnation, self._slots = node, incarnation, slots
        self._admission, self._completion, self._deliveries = admission, completion, deliveries
        self._usage = MachineUsage()
        self._sequence = 0
        self.state = "up"
        self.twin: Callable[[], str] = str
        """The machine of another process that ran as this node lately; "" when there is none."""

    def publish(self) -> None:
        """Send one heartbeat now. Raises: BusUnavailable."""
        self._sequence += 1
        rates = {
            kind: (rate.mean_s, rate.samples) for kind, rate in self._admission.executor.rates.items() if rate.samples
        }
        message = Heartbeat(
            node=self._node,
            incarnation=self._incarnation,
            seq=self._sequence,
            state=self.state,
            slots=self._slots,
            running=self._admission.executor.running,
            queued=self._admission.unstarted,
            cores_used=self._slots - self._admission.executor.free_cores,
            cpu_percent=self._usage.cpu_percent(),
            memory_used_bytes=self._usage.memory_used_bytes(),
            done=self._completion.done,
            failed=self._completion.failed,
            rates=rates,
            interval_s=self._config.heartbeat_interval_s,
            twin=self.twin(),
        )
        self._bus.send(subjects.heartbeat(self._node), encode(message))

    async def run(self) -> None:
        """Publish heartbeats until cancelled."""
        try:
            await self._publish_periodically()
        finally:
            self._usage.close()

    async def _publish_periodically(self) -> None:
        async for tick in every(self._config.heartbeat_interval_s, jitter=0.1):
            if tick.late_s > self._config.stall_limit_s:
                log.warning("this process stood still for %.1f s; other nodes may run its tasks now", tick.late_s)
                self._admission.stalled()
            self._admission.alive_at = asyncio.get_running_loop().time()
            try:
                if self._bus.connected:
                    self.publish()
            except QueztlError as error:
                log.debug("could not send a heartbeat: %s", error)

    async def keep_deliveries(self, held: asyncio.Event) -> None:
        """While tasks are held: announce the deliveries, renew them and write task states. Until cancelled.

        `held`: set whenever the node takes a delivery; cleared here when it holds none.
        """
        announced_at = 0.0
        while True:
            await held.wait()
            async for _ in every(UPKEEP_EVERY_S, jitter=0.0, first=False):
                now = asyncio.get_running_loop().time()
                if not self._bus.connected:
                    continue
                again = now - announced_at >= ANNOUNCE_AGAIN_S
                if again:
                    announced_at = now
                    self._admission.shed()
                self._deliveries.announce(now, self._config.announce_after_s, force=again)
                self._deliveries.renew(now, self._config.ack_wait_s / 3)
                self._completion.write_states(now)
                if not len(self._deliveries):
                    held.clear()
                    break
                if now - self._deliveries.changed_at > QUIET_S:
                    # Checking long tasks forty times a second would cost the daemon CPU time for nothing.
                    self._deliveries.changed.clear()
                    await wait_until_set(self._deliveries.changed, QUIET_S)
