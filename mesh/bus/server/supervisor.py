"""The bus server of a node: creates a bus in an empty folder, joins one there, or comes back; it is kept alive.

Two processes: the *server* with the streams, and its *witness*, because Raft starts only once another server is
connected (`layout.py`). Either may be killed at any moment: without the witness everything goes on, and the server is
started again with everything the bus had confirmed.

Not promised: what was confirmed within the last `sync_interval_s` survives a kill, not a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.bus.server import bootstrap, data_dir, ports, readiness, store_audit, suspension
from mesh.bus.server.binary import find_server
from mesh.bus.server.config import local_host, render
from mesh.bus.server.data_dir import BusMarker, Member, Route
from mesh.bus.server.disk import SLOW_S, DiskProbe
from mesh.bus.server.layout import LOOPBACK, BusAddress, BusSettings, Layout
from mesh.bus.server.process import ServerProcess
from mesh.bus.server.restarts import remembered, restart_delay_s
from mesh.errors import CannotStart
from mesh.subjects import host_of

__all__ = ["BusAddress", "BusServer", "BusSettings"]

log = logging.getLogger(__name__)

#: Creating a bus takes 0.3-1.1 s. In one of thirty the first vote is split, and the next one comes 4-9 s later (Raft's
#: time-out, which can't be set): starting anew is quicker. The last time is for a very slow machine.
_CREATION_TIMEOUTS_S = (1.6, 2.5, 20.0)


class BusServer:
    """The two processes of one node's bus. One object, one `start`, one `stop`."""

    def __init__(self, folder: Path, settings: BusSettings, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        self.folder, self.settings, self._on_event = folder, settings, on_event
        self.created_now = False
        """Whether `start` made a new bus (and the streams are yet to be declared)."""
        self._layout = Layout(folder, settings)
        self._address: BusAddress | None = None
        self._server: ServerProcess | None = None
        self._witness: ServerProcess | None = None
        self._stopping = asyncio.Event()
        self._restart_reason = ""
        """Why `restart` ends the server; "" when it ends by itself."""
        self._is_ready = False
        self.disk = DiskProbe(folder / "store", lambda: self.pids.get("server"))
        """The disk of its store, watched while it runs."""
        self.is_suspended = False
        """Whether it was ended because its disk hangs, and is not ready again."""
        self._suspended_at: list[float] = []
        self.restarts = 0
        """How often the server was started again."""
        self.expected = store_audit.Expected()
        """What the store should have held at the last start of the server."""
        self._watchers: list[asyncio.Task[None]] = []
        self._marker: BusMarker | None = None

    @property
    def marker(self) -> BusMarker:
        """What its folder holds; known once it was started."""
        assert self._marker is not None, "start it first"
        return self._marker

    @property
    def name(self) -> str:
        """What the server is called in its group; known once it was started."""
        return self.marker.server_name

    @property
    def routes(self) -> tuple[Route, ...]:
        """(address, port) where other servers reach it; known once it was started."""
        hosts = self.settings.advertise or (local_host(self.settings.bind_host),)
        return tuple((host, self.marker.cluster_port) for host in hosts)

    @property
    def peers(self) -> tuple[Route, ...]:
        """Where the other machines' servers are, as last heard."""
        return self._marker.peers if self._marker else ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The other servers of the mesh, as last heard."""
        return self._marker.members if self._marker else ()

    @property
    def address(self) -> BusAddress:
        """Where it is; known once it was started."""
        assert self._address is not None, "start it first"
        return self._address

    @property
    def pids(self) -> dict[str, int]:
        """The living processes by name: "server", "witness"."""
        processes = [process for process in (self._server, self._witness) if process]
        return {process.name: process.pid for process in processes if process.pid is not None}

    @property
    def is_ready(self) -> bool:
        """Whether the server was ready after its last start and its process has not ended since."""
        return self._is_ready and "server" in self.pids

    async def start(self, join: Sequence[Route] = ()) -> BusAddress:
        """Create a bus when the folder is empty (or join the servers at `join`), else bring back the one in it.

        It serves when this returns, unless it came back and its group has no majority yet.
        Raises: CannotStart, with the reason, when it can't; nothing runs then.
        """
        began = time.monotonic()
        binary = (await asyncio.to_thread(find_server)).path
        data_dir.prepare(self.folder)
        group = self.settings.own_group
        server = self._server = ServerProcess("server", binary, self.folder, own_group=group)
        witness = self._witness = ServerProcess("witness", binary, self.folder, own_group=group)
        boot = ServerProcess("boot", binary, self.folder, own_group=group)
        for process in (server, witness, boot):
            if await process.stop_leftover():
                log.warning("a %s of an earlier run was still there; it was ended", process.name)
        try:
            marker = data_dir.read_marker(self.folder)
            if marker is None and join:
                marker = await self._join(server, tuple(join))
                await witness.launch(self._layout.witness(marker))
            elif marker is None:
                marker = await self._create(server, boot)
                self.created_now = True
                await witness.launch(self._layout.witness(marker))
                await readiness.until_ready(server, self.settings, marker)
            else:
                self.expected = await asyncio.to_thread(store_audit.expected, self.folder, marker.server_name)
                marker = await self._bring_back(server, witness, marker)
        except BaseException:
            await self._end_both()
            raise
        self._marker, self._address, self._is_ready = marker, self._layout.address(marker), True
        for process, ready in ((server, self._ready_again), (witness, _at_once)):
            self._watchers.append(asyncio.create_task(self._watch(process, ready), name=f"bus {process.name}"))
        took_s = round(time.monotonic() - began, 3)
        self._on_event("server_created" if self.created_now else "server_started", {"took_s": took_s})
        self.disk.start()
        return self._address

    async def stop(self) -> None:
        """End both processes: the server, which closes its store, then the witness."""
        self._stopping.set()
        self.disk.close()
        await self._end_both()
        if self.pids:  # a process whose disk hangs is not waited for
            for watcher in self._watchers:
                watcher.cancel()
        for outcome in await asyncio.gather(*self._watchers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        self._watchers.clear()

    async def restart(self, reason: str) -> None:
        """End the server normally; it is started again at once. `reason`: for people."""
        assert self._server is not None, "start it first"
        if self._is_ready and not self._stopping.is_set():
            self._restart_reason, self._is_ready = reason, False
            await self._server.end()

    def suspend(self) -> None:
        """End the server at once, because its disk hangs; it is started again when the disk works. In any thread."""
        assert self._server is not None, "start it first"
        if self._is_ready and not self._stopping.is_set():
            self._suspended_at.append(time.monotonic())
            self._restart_reason, self._is_ready, self.is_suspended = "its disk hung", False, True
            self._server.kill()

    async def set_peers(self, peers: Sequence[Route], members: Sequence[Member] | None = None) -> None:
        """Where the others are, now and at the next start; `members`: which servers they are, None: as before.

        Raises: OSError.
        """
        assert self._marker is not None and self._server is not None, "start it first"
        before = self._marker
        after = replace(before, peers=tuple(peers), members=before.members if members is None else tuple(members))
        if after == before:
            return
        self._marker = after
        if self.disk.hangs_s >= SLOW_S:
            raise OSError(errno.ETIMEDOUT, "the disk does not finish a write")
        if after.peers != before.peers:
            self._server.write_config(render(self._layout.server(after)))
            self._server.reload()
        data_dir.write_marker(self.folder, after)

    def move(self, addresses: tuple[str, ...]) -> None:
        """This machine has other addresses now: clients and servers are told of these."""
        assert self._marker is not None and self._server is not None, "start it first"
        self.settings = replace(self.settings, advertise=addresses)
        self._layout = Layout(self.folder, self.settings)
        self._address = self._layout.address(self._marker)
        self._server.write_config(render(self._layout.server(self._marker)))
        self._server.reload()

    async def retire(self) -> None:
        """End both for good: the server was taken out of its group, and what it holds is out of date from now on."""
        await self.stop()
        await asyncio.to_thread(data_dir.put_aside, self.folder)

    async def _end_both(self) -> None:
        for process in (self._server, self._witness):
            if process is not None:
                await process.stop()

    # --- the first time ------------------------------------------------------------------------------

    async def _create(self, server: ServerProcess, boot: ServerProcess) -> BusMarker:
        async def attempt(limit_s: float) -> BusMarker:
            data_dir.wipe(self.folder)
            marker = ports.choose(self.settings, None)
            taken = (marker.client_port, marker.cluster_port, marker.witness_port)
            boot_port = data_dir.free_port(LOOPBACK, 0, taken)
            boot_config = self._layout.boot(marker, boot_port)
            config = replace(self._layout.server(marker), routes=((LOOPBACK, boot_port),))
            await bootstrap.create(server, config, boot, boot_config, limit_s)
            return marker

        marker = await self._start_with_retries(attempt)
        # The boot peer is no longer a route, neither for the next start nor for the running server.
        return self._settle_in(server, marker)

    async def _join(self, server: ServerProcess, peers: tuple[Route, ...]) -> BusMarker:
        """Become one more member of the group at `peers`. It counts once that group's leader says so."""
        # A server that was taken out is refused under its old name for minutes: every membership has a name of its own.
        name = f"{self.settings.node_id}~{secrets.token_hex(3)}"

        async def attempt(_: float) -> BusMarker:
            data_dir.wipe(self.folder)
            marker = replace(ports.choose(self.settings, None), server_name=name, peers=peers)
            await server.launch(render(self._layout.newcomer(marker)))
            await readiness.until_ready(server, self.settings, marker)
            return marker

        return self._settle_in(server, await self._start_with_retries(attempt))

    def _settle_in(self, server: ServerProcess, marker: BusMarker) -> BusMarker:
        """Replace the configuration of the first start by the lasting one."""
        server.write_config(render(self._layout.server(marker)))
        server.reload()
        data_dir.write_marker(self.folder, marker)
        return marker

    async def _start_with_retries(self, attempt: Callable[[float], Awaitable[BusMarker]]) -> BusMarker:
        """`attempt(limit in seconds)`, up to three times: an election, or a port that another process took meanwhile,
        may be bad luck. Raises: CannotStart."""
        for limit_s in _CREATION_TIMEOUTS_S[:-1]:
            try:
                return await attempt(limit_s)
            except CannotStart as error:
                await self._end_both()
                if not (isinstance(error, bootstrap.NoLeader) or "address already in use" in str(error)):
                    raise
        return await attempt(_CREATION_TIMEOUTS_S[-1])

    # --- every other time ----------------------------------------------------------------------------

    async def _bring_back(self, server: ServerProcess, witness: ServerProcess, was: BusMarker) -> BusMarker:
        settings = self.settings
        if (was.mesh_id, host_of(was.server_name)) != (settings.mesh_id, settings.node_id):
            raise CannotStart(
                f"{self.folder} holds the bus of mesh {was.mesh_id} on node {was.server_name}, this is mesh "
                f"{settings.mesh_id} on node {settings.node_id}; give another --data"
            )

        async def attempt(_: float) -> BusMarker:
            marker = ports.choose(settings, was)
            await witness.launch(self._layout.witness(marker))
            await server.launch(render(self._layout.server(marker)))
            await readiness.until_ready(server, self.settings, marker, restarted=True)
            return marker

        marker = await self._start_with_retries(attempt)
        data_dir.write_marker(self.folder, marker)
        return marker

    async def _ready_again(self, server: ServerProcess) -> None:
        assert self._marker is not None
        await readiness.until_ready(server, self.settings, self._marker, restarted=True)
        self._is_ready, self.is_suspended = True, False
        self.restarts += 1

    # --- keeping them alive --------------------------------------------------------------------------

    async def _watch(self, process: ServerProcess, ready: Callable[[ServerProcess], Awaitable[None]]) -> None:
        """Start `process` again whenever it dies, until `stop`."""
        deaths: tuple[float, ...] = ()
        while True:
            code = await process.wait()
            if self._stopping.is_set():
                return
            now = time.monotonic()
            ordered = self._ended(process)
            deaths = remembered(deaths if ordered else (*deaths, now), now)
            delay_s = 0.0 if ordered else restart_delay_s(deaths, now)
            facts = {"exit_code": code, "deaths": len(deaths), "reason": ordered or process.cause(code)}
            how = "was ended" if ordered else "died"
            log.error("the bus %s %s (%s); started again in %.1f s", process.name, how, facts["reason"], delay_s)
            if delay_s:
                self._on_event(f"{process.name}_failing", {**facts, "retry_in_s": delay_s})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay_s)
            # A start on a disk that hangs would stop this process.
            rest_s = suspension.rest_s(self._suspended_at, now) if self.is_suspended else 0.0
            await self.disk.until_works(rest_s, self._stopping)
            if self._stopping.is_set():
                return
            try:
                if process is self._server:
                    self.expected = await asyncio.to_thread(store_audit.expected, self.folder, self.name)
                    self._marker = ports.renew(self._layout, self.marker, process, self._witness)
                    self._address = self._layout.address(self._marker)
                await process.launch()
                if self._stopping.is_set():  # stopped between the fork and here
                    await process.stop()
                    return
                await ready(process)
            except CannotStart as error:
                if not self._stopping.is_set():
                    log.error("%s", error)
                await process.stop()  # its exit is the next death
                continue
            took_s = round(time.monotonic() - now - delay_s, 3)
            self._on_event(f"{process.name}_restarted", {**facts, "took_s": took_s})

    def _ended(self, process: ServerProcess) -> str:
        """Note that `process` has ended; the reason when `restart` ended it, else ""."""
        if process is not self._server:
            return ""
        self._is_ready = False
        reason, self._restart_reason = self._restart_reason, ""
        return reason


async def _at_once(process: ServerProcess) -> None:
    """A witness needs no waiting for: nothing depends on it but the next start."""
