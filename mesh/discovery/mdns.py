"""Discovery of nodes on the local network by mDNS, service `_queztl._tcp.local.`

Each node has one announcement, sent only on the addresses that `Discovery` is given. A machine that crashes sends no
goodbye, so announcements are repeated, and expire when they were not received for `TTL_S`. Expiry does not mean that
the node is dead: an announcement is only a hint about where to dial.

Two properties of the zeroconf library are worked around. It keeps pointer records for at least 1,125 s, and for one
second a replaced text record beside the new one; so this module reads the text records itself, newest first. And the
answer to a newcomer's query may take 2 s; so a node that hears a newcomer repeats its own announcement at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from zeroconf import DNSText, IPVersion, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from mesh.discovery.announcement import TTL_S, Announcement, Sighting, from_txt, heard, still_valid, to_properties

log = logging.getLogger(__name__)

SERVICE_TYPE = "_queztl._tcp.local."
REPEAT_S = 8.0
"""The period of the repeated announcements, jittered."""
NEWCOMER_PAUSE_S = 0.2
"""The shortest time between two repeats for newcomers."""


def _ignore(zeroconf: Zeroconf, service_type: str, name: str, state_change: object) -> None:
    """The library requires a handler with exactly these keywords."""


def multicasts(address: str) -> bool:
    """Whether this machine can join the mDNS group on `address`. Sends nothing.

    It is checked before zeroconf starts, because zeroconf fails as a whole on one bad address and leaks its sockets.
    """
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            probe.bind((address, 0))
        except OSError:
            return False
    return True


class Discovery(RecordUpdateListener):
    """Announces this node, and collects the announcements of others. `start` never fails: see `trouble`."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        on_change: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.trouble = ""
        """Why nothing can be sent or received, one sentence; empty when everything works."""
        self.addresses = addresses
        """Those of this machine on which it listens and announces."""
        self._on_change = on_change
        self._clock = clock
        self._sightings: dict[str, Sighting] = {}
        self._rivals: dict[str, Sighting] = {}
        """API URL -> the sighting of another process that announces this node's own id."""
        self._own_apis: set[str] = set()
        self._changed = asyncio.Event()
        self._mdns: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: ServiceInfo | None = None
        self._own: Announcement | None = None
        self._sent_at = 0.0
        self._repeating = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start listening. If the network does not allow it, `trouble` gives the reason and nothing is received."""
        try:
            usable = [address for address in self.addresses if multicasts(address)]
            if not usable:
                raise OSError("the system refuses to join a multicast group there")
            self._mdns = AsyncZeroconf(interfaces=usable, ip_version=IPVersion.V4Only)
            await self._mdns.zeroconf.async_wait_for_start()
        except (OSError, RuntimeError) as error:
            self.trouble = (
                f"Multicast does not work on {', '.join(self.addresses) or 'any address'} ({error}); "
                "nodes can't find each other by themselves, use --join URL."
            )
            log.warning("%s", self.trouble)
            await self.stop()
            return
        self._mdns.zeroconf.async_add_listener(self, None)
        # the browser sends the queries; the answers are read in async_update_records
        self._browser = AsyncServiceBrowser(self._mdns.zeroconf, SERVICE_TYPE, handlers=[_ignore])
        self._spawn(self._repeat(), "discovery: repeat")

    async def move(self, addresses: tuple[str, ...]) -> None:
        """This machine has other addresses now: listen and announce on these."""
        own = self._own
        await self.stop()
        self.addresses, self.trouble, self._repeating = addresses, "", False
        await self.start()
        if own is not None:
            await self.announce(own)

    async def announce(self, announcement: Announcement) -> None:
        """Send this announcement from now on, instead of the previous one; `at` is filled in.

        Raises: ValueError when a field is too long for a DNS record.
        """
        self._publish(self._make_info(announcement))
        self._spawn(self._send_twice_more(), "discovery: repeat a new announcement")

    async def update(self, announcement: Announcement) -> None:
        """`announce`, for a changed announcement."""
        await self.announce(announcement)

    def peers(self) -> tuple[Announcement, ...]:
        """The current announcements of other nodes, sorted by node id."""
        return tuple(sighting.announcement for sighting in self.sightings())

    def sightings(self) -> tuple[Sighting, ...]:
        """The current sightings of other nodes, sorted by node id."""
        self._sightings = still_valid(self._sightings.values(), self._clock())
        return tuple(self._sightings[node] for node in sorted(self._sightings))

    def rivals(self) -> tuple[Announcement, ...]:
        """The current announcements of other processes under this node's own id, from the time it announces itself."""
        now = self._clock()
        self._rivals = {api: seen for api, seen in self._rivals.items() if now - seen.heard_at < TTL_S}
        return tuple(sighting.announcement for sighting in self._rivals.values())

    async def changed(self, timeout_s: float) -> bool:
        """Wait for a change since the last call; False when none came within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def stop(self) -> None:
        """Send a goodbye and stop listening. Idempotent."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        mdns, self._mdns = self._mdns, None
        if mdns is None:
            return
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._info is not None:
            await (await mdns.async_unregister_service(self._info))
        self._info = self._browser = None
        await mdns.async_close()

    # --- what zeroconf calls -----------------------------------------------------------------------

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Called by zeroconf with received records, in the event loop."""
        for record in (update.new for update in records):
            if not isinstance(record, DNSText) or not record.name.lower().endswith(SERVICE_TYPE):
                continue
            announcement = from_txt(record.text)
            if announcement is None:
                continue
            if self._own is not None and announcement.node_id == self._own.node_id:
                self._on_own_id(announcement, record.is_expired(now))
                continue
            if record.is_expired(now):
                self._on_goodbye(announcement)
            else:
                self._on_announcement(announcement)

    def async_update_records_complete(self) -> None:
        """Called by zeroconf after each packet; nothing to do."""

    def _on_announcement(self, announcement: Announcement) -> None:
        before = self._sightings.get(announcement.node_id)
        after = heard(before, announcement, self._clock(), time.time())
        if after is None:
            return
        self._sightings[announcement.node_id] = after
        if before is None and not self._repeating:
            self._repeating = True
            self._spawn(self._repeat_for_newcomers(), "discovery: repeat for newcomers")
        if before is None or replace(before.announcement, at=0.0) != replace(announcement, at=0.0):
            node, role, mesh = announcement.node_id, announcement.role, announcement.mesh_name
            log.debug("%s %s announces itself as %s of %s", node, announcement.urls, role, mesh)
            self._notify()

    def _on_own_id(self, announcement: Announcement, gone: bool) -> None:
        """An announcement under this node's id: an echo of its own, or that of a copy of its data directory."""
        assert self._own is not None
        known = self._rivals.get(announcement.api)
        if gone:
            self._rivals.pop(announcement.api, None)
        elif announcement.api not in self._own_apis:
            after = heard(known, announcement, self._clock(), time.time())
            if after is not None:
                self._rivals[announcement.api] = after

    def _on_goodbye(self, announcement: Announcement) -> None:
        known = self._sightings.get(announcement.node_id)
        # an old text record expires long after a new one has replaced it
        if known and known.announcement.at <= announcement.at:
            del self._sightings[announcement.node_id]
            log.debug("%s has sent a goodbye", announcement.node_id)
            self._notify()

    # --- inside --------------------------------------------------------------------------------------

    def _notify(self) -> None:
        self._changed.set()
        if self._on_change:
            self._on_change()

    def _make_info(self, announcement: Announcement) -> ServiceInfo:
        at = time.time()
        if self._own is not None:
            at = max(at, self._own.at + 0.001)
        self._own = replace(announcement, at=at)
        self._own_apis.add(announcement.api)
        ports = [urlsplit(url).port for url in (*announcement.urls, announcement.api) if url]
        info = ServiceInfo(
            SERVICE_TYPE,
            f"{announcement.node_id}.{SERVICE_TYPE}",
            port=next((port for port in ports if port), 0),
            properties=to_properties(self._own),
            server=f"queztl-{announcement.node_id}.local.",
            parsed_addresses=list(self.addresses),
            host_ttl=TTL_S,
            other_ttl=TTL_S,
        )
        return info

    def _publish(self, info: ServiceInfo) -> None:
        """Answer queries with `info` from now on, and send it unsolicited.

        Not by async_register_service: that probes for a name that can't be taken (1.2 s), and its own repeats go on
        with the old record after it was replaced.
        """
        if self._mdns is None:
            return
        registry = self._mdns.zeroconf.registry
        if self._info is None:
            registry.async_add(info)
        else:
            registry.async_update(info)
        self._info = info
        self._send()

    def _send(self) -> None:
        if self._mdns is not None and self._info is not None:
            self._sent_at = self._clock()
            zeroconf = self._mdns.zeroconf
            zeroconf.async_send(zeroconf.generate_service_broadcast(self._info, None))

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(REPEAT_S * random.uniform(0.8, 1.2))
            known = len(self._sightings)
            if len(self.sightings()) != known:
                self._notify()
            if self._own is not None:
                self._publish(self._make_info(self._own))

    async def _send_twice_more(self) -> None:
        """Send the current announcement twice more, because packets get lost."""
        for _ in range(2):
            await asyncio.sleep(NEWCOMER_PAUSE_S)
            self._send()

    async def _repeat_for_newcomers(self) -> None:
        """Repeat the announcement once for all newcomers of a moment."""
        await asyncio.sleep(max(0.0, self._sent_at + NEWCOMER_PAUSE_S - self._clock()))
        # The clock is not checked again: a timer may fire a millisecond early.
        self._repeating = False
        self._send()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
