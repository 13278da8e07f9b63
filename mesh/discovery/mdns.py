"""Finding the other nodes of a local network: mDNS announcements, service `_queztl._tcp.local.`

One announcement a node, sent on every address this was given and on no other. A machine that crashes says no
goodbye, so each announcement is repeated and forgotten when it was not heard for `TTL_S`. Nobody's death is
concluded from that: an announcement is a hint about where to dial, nothing else.

Known of the zeroconf library and worked around here: it keeps pointer records for at least 1,125 s and for
a second it keeps a replaced text record beside the new one, so this reads the text records itself, newest
first; and an answer to a late joiner's question may take 2 s, so whoever hears a new node repeats itself at
once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from zeroconf import IPVersion, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from mesh.discovery.announcement import TTL_S, Announcement, Sighting, from_txt, heard, still_valid, to_properties

log = logging.getLogger(__name__)

SERVICE_TYPE = "_queztl._tcp.local."
REPEAT_S = 8.0
"""A node repeats its announcement this often, jittered."""
ECHO_PAUSE_S = 0.2
"""A node repeats itself for newcomers at most this often."""
_TYPE_TXT = 16


def _ignore(zeroconf: Zeroconf, service_type: str, name: str, state_change: object) -> None:
    """The library wants a handler, with exactly these keywords."""


def multicasts(address: str) -> bool:
    """Whether this machine can join mDNS's group on `address`; sends nothing.

    Asked before zeroconf is, which fails on one bad address as a whole and leaves its sockets open.
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
    """Announces this node and knows who else announces itself. `start` never fails: see `trouble`."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        on_change: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.trouble = ""
        """Why nothing can be announced or heard, one sentence; empty when all is well."""
        self._addresses = addresses
        self._on_change = on_change
        self._clock = clock
        self._sightings: dict[str, Sighting] = {}
        self._changed = asyncio.Event()
        self._mdns: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: ServiceInfo | None = None
        self._mine: Announcement | None = None
        self._said_at = 0.0
        self._echoing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Where the network does not allow it, `trouble` says why and nothing is heard."""
        try:
            usable = [address for address in self._addresses if multicasts(address)]
            if not usable:
                raise OSError("the system refuses to join a multicast group there")
            self._mdns = AsyncZeroconf(interfaces=usable, ip_version=IPVersion.V4Only)
            await self._mdns.zeroconf.async_wait_for_start()
        except (OSError, RuntimeError) as error:
            self.trouble = (
                f"Multicast does not work on {', '.join(self._addresses) or 'any address'} ({error}); "
                "nodes can't find each other by themselves, use --join URL."
            )
            log.warning("%s", self.trouble)
            await self.stop()
            return
        self._mdns.zeroconf.async_add_listener(self, None)
        # the browser is here for the questions it asks; the answers are read in async_update_records
        self._browser = AsyncServiceBrowser(self._mdns.zeroconf, SERVICE_TYPE, handlers=[_ignore])
        self._spawn(self._repeat(), "discovery: repeat")

    async def announce(self, announcement: Announcement) -> None:
        """Say this from now on, in place of whatever was said before; `at` is filled in.

        Raises: ValueError when a field is too long for a DNS record.
        """
        self._publish(self._say(announcement))
        self._spawn(self._insist(), "discovery: say it twice more")

    async def update(self, announcement: Announcement) -> None:
        """The same as `announce`, by the name that fits a change."""
        await self.announce(announcement)

    def peers(self) -> tuple[Announcement, ...]:
        """What the others say now, by node id."""
        return tuple(sighting.announcement for sighting in self.sightings())

    def sightings(self) -> tuple[Sighting, ...]:
        """What the others say now and since when, by node id."""
        self._sightings = still_valid(self._sightings.values(), self._clock())
        return tuple(self._sightings[node] for node in sorted(self._sightings))

    async def changed(self, timeout_s: float) -> bool:
        """Wait until anything new was heard since the last call; False when `timeout_s` passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def stop(self) -> None:
        """Say goodbye and stop listening. May be called twice."""
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
            self._info = None
        await mdns.async_close()

    # --- what zeroconf calls -----------------------------------------------------------------------

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Text records that came in (in the event loop)."""
        for record in (update.new for update in records):
            if record.type != _TYPE_TXT or not record.name.lower().endswith(SERVICE_TYPE):
                continue
            said = from_txt(record.text)
            if said is None or (self._mine is not None and said.node_id == self._mine.node_id):
                continue
            if record.is_expired(now):
                self._forget(said)
            else:
                self._hear(said)

    def async_update_records_complete(self) -> None:
        """Nothing to do once a packet is through."""

    def _hear(self, said: Announcement) -> None:
        before = self._sightings.get(said.node_id)
        after = heard(before, said, self._clock(), time.time())
        if after is None:
            return
        self._sightings[said.node_id] = after
        if before is None and not self._echoing:
            self._echoing = True
            self._spawn(self._echo(), "discovery: answer a newcomer")
        if before is None or replace(before.announcement, at=0.0) != replace(said, at=0.0):
            log.debug("%s %s says it is a %s of %s", said.node_id, said.urls, said.role, said.mesh_name)
            self._notify()

    def _forget(self, said: Announcement) -> None:
        known = self._sightings.get(said.node_id)
        # an old text record runs out long after a new one replaced it
        if known and known.announcement.at <= said.at:
            del self._sightings[said.node_id]
            log.debug("%s said goodbye", said.node_id)
            self._notify()

    # --- inside --------------------------------------------------------------------------------------

    def _notify(self) -> None:
        self._changed.set()
        if self._on_change:
            self._on_change()

    def _say(self, announcement: Announcement) -> ServiceInfo:
        at = time.time()
        if self._mine is not None:
            at = max(at, self._mine.at + 0.001)
        self._mine = replace(announcement, at=at)
        ports = [urlsplit(url).port for url in (*announcement.urls, announcement.api) if url]
        info = ServiceInfo(
            SERVICE_TYPE,
            f"{announcement.node_id}.{SERVICE_TYPE}",
            port=next((port for port in ports if port), 0),
            properties=to_properties(self._mine),
            server=f"queztl-{announcement.node_id}.local.",
            parsed_addresses=list(self._addresses),
            host_ttl=TTL_S,
            other_ttl=TTL_S,
        )
        return info

    def _publish(self, info: ServiceInfo) -> None:
        """Answer questions with `info` from now on, and send it unasked.

        Not by async_register_service: that probes for a name that can't be taken (1.2 s), and its own repeats
        go on with the old words after they were replaced.
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
            self._said_at = self._clock()
            zeroconf = self._mdns.zeroconf
            zeroconf.async_send(zeroconf.generate_service_broadcast(self._info, None))

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(REPEAT_S * random.uniform(0.8, 1.2))
            known = len(self._sightings)
            if len(self.sightings()) != known:
                self._notify()
            if self._mine is not None:
                self._publish(self._say(self._mine))

    async def _insist(self) -> None:
        """Packets get lost: whatever is current is sent again, twice."""
        for _ in range(2):
            await asyncio.sleep(ECHO_PAUSE_S)
            self._send()

    async def _echo(self) -> None:
        """One repeat for a newcomer; many newcomers at once share it."""
        await asyncio.sleep(max(0.0, self._said_at + ECHO_PAUSE_S - self._clock()))
        # Without another look at the clock: a timer may fire a millisecond before its time.
        self._echoing = False
        self._send()

    def _spawn(self, work, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
