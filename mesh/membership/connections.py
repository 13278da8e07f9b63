"""What the bus servers say of connections: opened, closed, still there; and closing one by force.

Needs a connection to the system account, so only the master keeps one (a contender asks once, before it takes
the lease of a master it no longer hears). Nodes name their connections "<node id>/<incarnation>". A server
that shuts down closes everybody's connection: that says nothing about the nodes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mesh.errors import QueztlError
from mesh.membership.failure_detector import Connection

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: Opens a connection to the system account; its name must not look like a node's.
OpenSystem = Callable[[], Awaitable["Bus"]]

CONNECT = "$SYS.ACCOUNT.*.CONNECT"
DISCONNECT = "$SYS.ACCOUNT.*.DISCONNECT"
SHUTDOWN = "$SYS.SERVER.*.SHUTDOWN"
LAMEDUCK = "$SYS.SERVER.*.LAMEDUCK"
CONNZ = "$SYS.REQ.SERVER.PING.CONNZ"
#: Reasons with which a server closes connections because of itself.
SERVER_REASONS = ("Server Shutdown", "Lame Duck")
#: Servers that have not answered this long after the last one that did are not waited for.
QUIET_S = 0.15
ANSWER_WITHIN_S = 1.0


def system_password(mesh_id: str) -> str:
    """On a mesh without a key any host of the LAN is its administrator: the mesh id is all it takes."""
    return f"open-{mesh_id}"


def kick_subject(server_id: str) -> str:
    """$SYS.REQ.SERVER.<id>.KICK"""
    return f"$SYS.REQ.SERVER.{server_id}.KICK"


def connection_name(node: str, incarnation: str) -> str:
    """What a node calls each of its connections."""
    return f"{node}/{incarnation}"


def split_name(name: str) -> tuple[str, str] | None:
    """(node, incarnation), or None when `name` is not a node's."""
    node, slash, incarnation = name.partition("/")
    return (node, incarnation) if slash and node and incarnation else None


def read_event(data: bytes) -> tuple[str, str, Connection, str] | None:
    """(node, incarnation, connection, reason) of a CONNECT or DISCONNECT event; None when it is no node's."""
    try:
        event = json.loads(data)
        client = event["client"]
        who = split_name(client.get("name", ""))
        if who is None:
            return None
        return (*who, (str(event["server"]["id"]), int(client["id"])), str(event.get("reason", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("a connection event of the bus can't be read: %s", error)
        return None


def read_connz(data: bytes) -> list[tuple[str, str, Connection]]:
    """(node, incarnation, connection) for each node's connection in one server's answer."""
    try:
        answer = json.loads(data)
        server_id = str(answer["server"]["id"])
        found = []
        for one in answer["data"].get("connections") or []:
            who = split_name(one.get("name", ""))
            if who is not None:
                found.append((*who, (server_id, int(one["cid"]))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("a list of connections of the bus can't be read: %s", error)
        return []
    return found


class Connections:
    """The system connection while it is open. `await open()`, then it feeds the registry until `close()`."""

    def __init__(self, open_system: OpenSystem, registry: Registry) -> None:
        self._open_system, self._registry = open_system, registry
        self._bus: Bus | None = None
        self._closing: dict[Connection, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Connect, listen, and learn who is connected now. Raises: BusUnavailable."""
        self._bus = bus = await self._open_system()
        bus.on_back.append(self._on_back)
        for subject, callback in (
            (CONNECT, self._on_connect),
            (DISCONNECT, self._on_disconnect),
            (SHUTDOWN, self._on_server_going),
            (LAMEDUCK, self._on_server_going),
        ):
            await bus.subscribe(subject, callback)
        await self._learn()

    async def close(self) -> None:
        """End the system connection."""
        if self._bus is not None:
            bus, self._bus = self._bus, None
            await bus.close()

    async def kick(self, server_id: str, client_id: int) -> None:
        """Close a connection by force, and wait until the bus says that it is closed: before that its pulls still
        swallow work. One that is gone already is no error. Raises: BusUnavailable.
        """
        if self._bus is None:
            return
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing[server_id, client_id] = closed
        try:
            body = json.dumps({"cid": client_id}).encode()
            answer = await self._bus.request(kick_subject(server_id), body, timeout_s=ANSWER_WITHIN_S)
            if b'"error"' in answer.data:
                return
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await closed
        except TimeoutError:
            log.info("the bus did not say that connection %d was closed", client_id)
        finally:
            del self._closing[server_id, client_id]

    async def _learn(self) -> None:
        assert self._bus is not None
        for node, incarnation, connection in await list_connections(self._bus):
            self._registry.connection_opened(node, incarnation, connection)

    async def _on_back(self) -> None:
        self._registry.bus_restarted()
        try:
            await self._learn()
        except QueztlError as error:
            log.info("the bus did not list its connections: %s", error.message)

    def _on_connect(self, message: Message) -> None:
        event = read_event(message.data)
        if event is not None:
            self._registry.connection_opened(*event[:3])

    def _on_disconnect(self, message: Message) -> None:
        event = read_event(message.data)
        if event is None:
            return
        closing = self._closing.get(event[2])
        if closing is not None and not closing.done():
            closing.set_result(None)
        if event[3].startswith(SERVER_REASONS):
            return
        self._registry.connection_closed(*event[:3])

    def _on_server_going(self, _: Message) -> None:
        self._registry.bus_restarted()


async def list_connections(bus: Bus) -> list[tuple[str, str, Connection]]:
    """(node, incarnation, connection) of every node's connection to any server; `bus` is a system one.

    Raises: BusUnavailable while the connection is closed for good.
    """
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    box = bus.new_inbox()
    subscription = await bus.subscribe(box, lambda message: answers.put_nowait(message.data), wait=False)
    found: list[tuple[str, str, Connection]] = []
    try:
        await bus.publish(CONNZ, json.dumps({"limit": 65_536}).encode(), reply=box)
        wait_s = ANSWER_WITHIN_S
        while True:
            async with asyncio.timeout(wait_s):
                found += read_connz(await answers.get())
            wait_s = QUIET_S
    except TimeoutError:
        return found
    finally:
        await subscription.close()


async def is_connected(open_system: OpenSystem, node: str, incarnation: str) -> bool:
    """Whether any bus server still has a connection of that incarnation. Raises: BusUnavailable."""
    bus = await open_system()
    try:
        connections: list[Any] = await list_connections(bus)
    finally:
        await bus.close()
    return any(one[:2] == (node, incarnation) for one in connections)
