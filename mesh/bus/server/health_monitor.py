"""Watches that a bus server stores, and restarts it when it lives and no longer does: the loop beside `health.py`.

It asks the server over its system account on loopback, follows its log, and reads what `disk.py` finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.bus.server import disk, health
from mesh.bus.server.bootstrap_client import Admin, AdminError
from mesh.bus.server.config import MESH_ACCOUNT, local_host
from mesh.bus.server.health import Disk, Memory, Seen
from mesh.bus.server.server_log import LogFacts, ServerLog
from mesh.bus.server.store_auditor import StoreAuditor
from mesh.bus.server.supervisor import BusServer

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
#: The period while something is wrong, seconds.
LOOK_SOON_S = 1.0
#: The whole health check of the server is read at this period, seconds.
WHOLE_EVERY_S = 10.0
_ANSWER_S = 2.0
_READ_S = 1.0


@dataclass(frozen=True)
class Health:
    """What is known of the server at this node."""

    stores: bool = True
    """Whether it can store something new."""
    is_full: bool = False
    """Whether it can't because its disk is full."""
    says: str = ""
    """The state for people; "" when nothing is wrong."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Stream -> messages that its store has lost within a day."""


class HealthMonitor:
    """`run()` until cancelled."""

    def __init__(
        self,
        server: BusServer,
        report: Callable[[Health], None],
        may_restart: Callable[[bool], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` is called with each look. `may_restart(serves_nothing)`: whether the other servers can do without
        this one now; `serves_nothing`: they do already."""
        self._server, self._report, self._may_restart, self._clock = server, report, may_restart, clock
        store = server.folder / "store"
        self._disk, self._log = server.disk, ServerLog(server.folder / "server.log")
        self._log_look: asyncio.Future[LogFacts] | None = None
        self._restarts = server.restarts
        self._disk_name = disk.name_of(store)
        self._memory, self._admin = Memory(), None
        self._whole_at = float("-inf")
        self._fault, self._logged = "", ""
        self._audit = StoreAuditor(server, self._read_stream, clock)
        self._admin: Admin | None

    async def run(self) -> None:
        """Look, decide, act, repeat."""
        try:
            while True:
                fine = True
                if self._server.is_ready:
                    fine = await self._look()
                elif self._server.is_suspended:
                    fine = self._report_suspended()
                await asyncio.sleep(LOOK_EVERY_S if fine else LOOK_SOON_S)
        finally:
            await self._hang_up()

    async def _look(self) -> bool:
        """One look and what follows; whether nothing is wrong."""
        if self._server.restarts != self._restarts:  # no write error outlives the process that kept it
            self._restarts, self._fault = self._server.restarts, ""
            self._memory = Memory(restarts=self._memory.restarts, restarted_at=self._memory.restarted_at)
        seen = await self._see()
        if not self._server.is_ready:  # it ended meanwhile, and its supervisor starts it again
            return False
        verdict, self._memory = health.judge(seen, self._memory, self._clock())
        says = (
            verdict.says.replace("the disk ", f"the disk ({self._disk_name}) ", 1) if self._disk_name else verdict.says
        )
        self._note(says, verdict.stores)
        self._report(Health(verdict.stores, verdict.is_full, says, self._audit.lost))
        if verdict.restart and await self._may_restart(verdict.serves_nothing):
            await self._hang_up()
            self._whole_at, self._fault = float("-inf"), ""
            await self._server.restart(verdict.restart)
            self._memory = health.restarted(self._memory, self._clock())
        return not says

    def _report_suspended(self) -> bool:
        where = f"the disk ({self._disk_name})" if self._disk_name else "the disk"
        says = f"{where} did not finish a write: check it; the server was ended and continues when the disk works"
        self._note(says, False)
        self._report(Health(False, False, says, self._audit.lost))
        return False

    def _note(self, says: str, stores: bool) -> None:
        """Log each new state once. The figures in it change with every look."""
        state = says.partition("(")[0] + says.rpartition(")")[2]
        if state == self._logged:
            return
        self._logged = state
        if says:
            where = f"{self._server.folder}: " if "disk" in says else ""
            log.log(logging.WARNING if stores else logging.ERROR, "the bus server: %s%s", where, says)
        else:
            log.info("the bus server stores again")

    async def _see(self) -> Seen:
        found, logged = self._disk.state or Disk(health.LOW_BYTES), await self._read_log()
        seen = Seen(found, write_errors=logged.write_errors)
        if found.fault == "hangs":  # so may whatever the server is asked
            return replace(seen, fault=self._fault)
        try:
            enabled = await self._ask("HEALTHZ", {"js-enabled-only": True})
            seen = replace(seen, enabled=_is_ok(enabled))
            if seen.enabled:
                await self._audit.mark()
                streams = await self._ask("JSZ", {"account": MESH_ACCOUNT, "streams": True})
                await self._audit.look(streams, logged.restored)
                if self._clock() - self._whole_at >= WHOLE_EVERY_S:
                    self._whole_at = self._clock()
                    self._fault = restartable_fault(await self._ask("HEALTHZ", {"details": True}))
        except (AdminError, OSError, ValueError):  # a TimeoutError is an OSError
            await self._hang_up()
            seen = replace(seen, answers=False)
        return replace(seen, fault=self._fault)

    async def _read_log(self) -> LogFacts:
        """What the log says, or said when it was read last: a disk that hangs is not waited for."""
        if self._log_look is None:
            self._log_look = asyncio.ensure_future(asyncio.to_thread(self._log.look))
        done, _ = await asyncio.wait({self._log_look}, timeout=_READ_S)
        if done:
            self._log_look = None
        return self._log.facts

    async def _read_stream(self, stream: str) -> dict[str, Any]:
        """Raises: AdminError, OSError, ValueError."""
        admin = await Admin.open(*self._location())
        try:
            return dict(await admin.request(f"$JS.API.STREAM.INFO.{stream}", {"deleted_details": True}))
        finally:
            await admin.close()

    def _location(self) -> tuple[str, int]:
        port = int(self._server.address.local_url.rpartition(":")[2])
        return local_host(self._server.settings.bind_host), port

    async def _ask(self, what: str, options: dict[str, Any]) -> dict[str, Any]:
        """Raises: AdminError, OSError, ValueError."""
        if self._admin is None:
            address = self._server.address
            self._admin = await Admin.open(*self._location(), address.system_user, address.system_password)
        subject = f"$SYS.REQ.SERVER.{self._admin.server_id}.{what}"
        answer = await self._admin.request(subject, options, timeout_s=_ANSWER_S)
        return dict(answer.get("data") or {})

    async def _hang_up(self) -> None:
        if self._admin is not None:
            await self._admin.close()
            self._admin = None


def _is_ok(healthz: Mapping[str, Any]) -> bool:
    return healthz.get("status") == "ok"


def restartable_fault(healthz: Mapping[str, Any]) -> str:
    """The first complaint of the server's whole health check that a restart heals; "" when there is none. Pure.

    A copy that catches up and a group without a leader are no faults of this server.
    """
    words = ("write error", "monitor goroutine not running", "stream not found", "node missing", "is not running")
    for error in healthz.get("errors") or ():
        text = str(error.get("error", ""))
        if any(word in text for word in words):
            return f"{error['stream']}: {text}" if error.get("stream") else text
    return ""


__all__ = ["Disk", "Health", "HealthMonitor"]
