"""Says that this node lives, and watches whether it does: a beat every half second, a pulse while it holds work.

The beat comes from this process, which no workload can starve (they run in niced processes of their own). When the
loop stood still for longer than `stall_limit_s`, what this node holds is no longer its own to acknowledge.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import psutil

from mesh import subjects
from mesh.errors import QueztlError
from mesh.messages import Heartbeat, encode
from mesh.supervision import every, within
from node.work.admission import Admission
from node.work.completion import Completion
from node.work.deliveries import Deliveries

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)
#: Held work is looked at this often: announcements and states are at most this late.
PULSE_S = 0.025
#: Nothing was taken, begun or dropped for so long: what is held is looked at this often, or as soon as something is.
QUIET_S = 0.25
#: A set that is not empty is announced again this often, for a master that is new.
ANNOUNCE_AGAIN_S = 1.0


class HeartbeatPublisher:
    """One node's beat and pulse."""

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
        self._sequence = 0
        self.state = "up"

    def publish(self) -> None:
        """Say it once, now."""
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
            cpu_percent=psutil.cpu_percent(None),
            memory_used_bytes=psutil.virtual_memory().used,
            done=self._completion.done,
            failed=self._completion.failed,
            rates=rates,
            interval_s=self._config.heartbeat_interval_s,
        )
        self._bus.send(subjects.heartbeat(self._node), encode(message))

    async def run(self) -> None:
        """Beat until cancelled."""
        async for tick in every(self._config.heartbeat_interval_s, jitter=0.1):
            if tick.late_s > self._config.stall_limit_s:
                log.warning("this process stood still for %.1f s; others may run its work by now", tick.late_s)
                self._admission.stalled()
            self._admission.alive_at = asyncio.get_running_loop().time()
            try:
                if self._bus.connected:
                    self.publish()
            except QueztlError as error:
                log.debug("a beat was not sent: %s", error)

    async def pulse(self, held: asyncio.Event) -> None:
        """While work is held: announce it, renew it, write its states."""
        announced_at = 0.0
        while True:
            await held.wait()
            async for _ in every(PULSE_S, jitter=0.0, first=False):
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
                    # Long tasks are not looked at forty times a second.
                    self._deliveries.news.clear()
                    await within(self._deliveries.news, QUIET_S)
