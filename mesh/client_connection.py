"""The connection of a client to the mesh's bus: opened and checked once, and moved along when the mesh is merged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Self, TypeVar

from mesh import subjects
from mesh.bus.client import Bus, Subscription
from mesh.config import LAN, MeshConfig
from mesh.coordination import MergeOrder
from mesh.endpoint import bus_location, bus_urls
from mesh.errors import BusUnavailable, QueztlError
from mesh.membership.mesh_record import check_wire_version, read_mesh_record, read_mesh_record_anywhere
from mesh.membership.store_reports import StoreReports
from mesh.merge.confirmation import confirm
from mesh.merge.order import read_order
from mesh.node_api import BUS_SCHEMES, mesh_address
from mesh.tasks.completions import Completions
from mesh.tasks.status import Members
from mesh.tasks.submitter import Submitter

T = TypeVar("T")
log = logging.getLogger(__name__)

#: The record of a merge is read up to this many times, this many seconds apart: its notice comes before it is readable.
MERGE_READ_TRIES, MERGE_READ_AGAIN_S = 10, 0.2
#: How often a node is asked where the bus is while the connection to it is lost, seconds.
ASK_AGAIN_S = 2.0


class ClientConnection:
    """Connects with `connect` or `async with`; `mesh.client.Mesh` adds what can be done with the connection."""

    def __init__(
        self,
        url: str | None = None,
        *,
        config: MeshConfig = LAN,
        bus: Bus | None = None,
        members: Members | None = None,
    ) -> None:
        """`bus`: use this connection, and leave it open; `members`: who is in the mesh, as a node's registry knows."""
        self._url, self._config, self._members = url, config, members
        self._bus, self._owns_bus = bus, bus is None
        self.name = f"c{secrets.token_hex(5)}"
        self._submitter: Submitter | None = None
        self._stores: StoreReports | None = None
        self._completions: Completions | None = None
        self._mesh_watch: Subscription | None = None
        self._following: asyncio.Task[None] | None = None
        self._seeking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect to the bus.

        Raises: BusUnavailable, with what to do; BadInput for an address that is none; IncompatibleMesh when the mesh
        speaks another wire version.
        """
        if self._bus is None:
            self._bus = await Bus.connect(await bus_urls(self._url), name=self.name, config=self._config)
            self._bus.on_lost.append(self._on_bus_lost)
        try:
            if self._owns_bus:
                await _check_mesh(self._bus)
            self._stores = StoreReports(self._bus)
            await self._stores.start()
            self._submitter = Submitter(self._bus, self.name, self._stores.refusal)
            self._completions = Completions(self._bus, self.name)
            await self._completions.start()
            self._mesh_watch = await self._bus.kv(subjects.KV_MESH).watch(self._on_mesh_change)
        except BaseException:  # `async with` closes only what it has entered
            await self.close()
            self._mesh_watch = self._completions = self._stores = None
            if self._owns_bus:
                self._bus = None
            raise

    def _on_bus_lost(self) -> None:
        """The bus servers may have moved: ask the node whose API the client was given, if it was given one."""
        asks = not mesh_address(self._url).startswith(BUS_SCHEMES)
        if asks and (self._seeking is None or self._seeking.done()):
            self._seeking = asyncio.create_task(self._seek_bus(), name="seek the bus")

    async def _seek_bus(self) -> None:
        while not self.bus.connected:
            with contextlib.suppress(QueztlError):
                # The node may have moved into another mesh with its own.
                self.bus.learn(*await bus_location(self._url))
            await asyncio.sleep(ASK_AGAIN_S)

    def _on_mesh_change(self, key: str) -> None:
        """When this mesh is merged into another one, learn where the bus of that one is."""
        if key == subjects.MERGE_KEY and self._following is None:
            self._following = asyncio.create_task(self._follow_merge(), name="follow the mesh")

    async def _follow_merge(self) -> None:
        try:
            for _ in range(MERGE_READ_TRIES):
                order = await read_order(self.bus)
                if order is not None:
                    if await self._is_confirmed(order):
                        self.bus.learn(order.urls, order.into)
                    return
                await asyncio.sleep(MERGE_READ_AGAIN_S)
        except QueztlError as error:
            # The next step of the merge is another notice.
            log.debug("the order of the merge could not be read: %s", error)
        finally:
            self._following = None

    async def _is_confirmed(self, order: MergeOrder) -> bool:
        """Whether the other mesh holds the matching acceptance. Raises: BusUnavailable."""

        async def connect(urls: tuple[str, ...]) -> Bus:
            return await Bus.connect(urls, name=self.name, config=self._config)

        record = await read_mesh_record(self.bus)
        return record is not None and (await confirm(order, record.id, record.name, connect)).state == "confirmed"

    async def close(self) -> None:
        """Cancel open waits, and close the connection unless the caller passed it in."""
        for task in (self._following, self._seeking):
            if task is not None:
                task.cancel()
        try:
            # The connection ends in any case, so the server need not confirm that the subscriptions ended.
            with contextlib.suppress(BusUnavailable):
                if self._mesh_watch is not None:
                    await self._mesh_watch.close()
            with contextlib.suppress(BusUnavailable):
                if self._completions is not None:
                    await self._completions.stop()
            with contextlib.suppress(BusUnavailable):
                if self._stores is not None:
                    await self._stores.close()
        finally:
            if self._bus is not None and self._owns_bus:
                await self._bus.close()

    @property
    def bus(self) -> Bus:
        """The connection. Raises: RuntimeError before `connect`."""
        return _connected(self._bus)

    @property
    def submitter(self) -> Submitter:
        """Publishes this client's tasks. Raises: RuntimeError before `connect`."""
        return _connected(self._submitter)

    @property
    def stores(self) -> StoreReports:
        """What the bus servers report about their stores. Raises: RuntimeError before `connect`."""
        return _connected(self._stores)

    @property
    def completions(self) -> Completions:
        """This client's open waits. Raises: RuntimeError before `connect`."""
        return _connected(self._completions)


def _connected(part: T | None) -> T:
    if part is None:
        raise RuntimeError("use `async with Mesh() as mesh:` or `await mesh.connect()` first")
    return part


async def _check_mesh(bus: Bus) -> None:
    """Refuse a mesh of another wire version. Raises: IncompatibleMesh."""
    try:
        record = await read_mesh_record_anywhere(bus)
    except BusUnavailable as error:
        # Every call raises this by itself; a client that waits for the bus to come back may connect.
        log.debug("the wire version of the mesh could not be read: %s", error)
        return
    if record is not None:
        check_wire_version(record)
