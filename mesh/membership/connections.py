"""Client connections as the bus servers report them: opened, closed, listed; and closing one by force.

This needs a connection to the system account, so only the leader keeps one (a contender opens one for a moment, before
it takes over the lease of a silent leader). Nodes name their connections "<node id>/<incarnation>". A server that shuts
down closes all its connections: that is no evidence about the nodes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mesh.errors import QueztlError
from mesh.membership.failure_detector import Connection

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: Opens a connection to the system account. Its name must not have the form of a node's.
OpenSystem = Callable[[], Awaitable["Bus"]]

CONNECT = "$SYS.ACCOUNT.*.CONNECT"
DISCONNECT = "$SYS.ACCOUNT.*.DISCONNECT"
SHUTDOWN = "$SYS.SERVER.*.SHUTDOWN"
LAMEDUCK = "$SYS.SERVER.*.LAMEDUCK"
CONNZ = "$SYS.REQ.SERVER.PING.CONNZ"
#: Close reasons that concern the server and not the client.
SERVER_REASONS = ("Server Shutdown", "Lame Duck")
#: How long to wait for further servers after each answer, seconds.
QUIET_S = 0.15
ANSWER_WITHIN_S = 1.0


def system_password(mesh_id: str) -> str:
    """The password of the system account. A mesh without a key has no secret: any host of the LAN can administer it."""
    return f"open-{mesh_id}"


def kick_subject(server_id: str) -> str:
    """$SYS.REQ.SERVER.<id>.KICK"""
    return f"$SYS.REQ.SERVER.{server_id}.KICK"


def connection_name(node: str, incarnation: str) -> str:
    """The name of each connection of a node."""
    return f"{node}/{incarnation}"


def split_name(name: str) -> tuple[str, str] | None:
    """(node, incarnation); None when the connection is not a node's."""
    node, slash, incarnation = name.partition("/")
    return (node, incarnation) if slash and node and incarnation else None


def read_event(data: bytes) -> tuple[str, str, Connection, str] | None:
    """(node, incarnation, connection, reason) of a CONNECT or DISCONNECT event; None when it is not a node's."""
    try:
        event = json.loads(data)
        client = event["client"]
        node = split_name(client.get("name", ""))
        if node is None:
            return None
        return (*node, (str(event["server"]["id"]), int(client["id"])), str(event.get("reason", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("ignored a malformed connection event of the bus: %s", error)
        return None


def read_connz(data: bytes) -> list[tuple[str, str, Connection]]:
    """(node, incarnation, connection) of every node connection in the answer of one server."""
    try:
        answer = json.loads(data)
        server_id = str(answer["server"]["id"])
        found: list[tuple[str, str, Connection]] = []
        for client in answer["data"].get("connections") or []:
            node = split_name(client.get("name", ""))
            if node is not None:
                found.append((*node, (server_id, int(client["cid"]))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("ignored a malformed connection list of the bus: %s", error)
        return []
    return found


class Connections:
    """A system connection that reports to the registry, from `open()` until `close()`."""

    def __init__(self, open_system: OpenSystem, registry: Registry) -> None:
        self._open_system, self._registry = open_system, registry
        self._bus: Bus | None = None
        self._closing: dict[Connection, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Connect, subscribe to events, and read the current connections. Raises: BusUnavailable."""
        self._bus = bus = await self._open_system()
        bus.on_back.append(self._on_back)
        for subject, callback in (
            (CONNECT, self._on_connect),
            (DISCONNECT, self._on_disconnect),
            (SHUTDOWN, self._on_server_shutdown),
            (LAMEDUCK, self._on_server_shutdown),
        ):
            await bus.subscribe(subject, callback)
        await self._read_all()

    async def close(self) -> None:
        """End the system connection."""
        if self._bus is not None:
            bus, self._bus = self._bus, None
            await bus.close()

    async def kick(self, server_id: str, client_id: int) -> None:
        """Close a connection by force, and wait until the bus reports it closed: until then its pulls take deliveries.

        A connection that is closed already is no error. Raises: BusUnavailable.
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
            log.info("the bus did not report that connection %d was closed", client_id)
        finally:
            del self._closing[server_id, client_id]

    async def _read_all(self) -> None:
        assert self._bus is not None
        for node, incarnation, connection in await list_connections(self._bus):
            self._registry.connection_opened(node, incarnation, connection)

    async def _on_back(self) -> None:
        self._registry.bus_restarted()
        try:
            await self._read_all()
        except QueztlError as error:
            log.info("could not list the connections of the bus: %s", error.message)

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

    def _on_server_shutdown(self, _: Message) -> None:
        self._registry.bus_restarted()


async def list_connections(bus: Bus) -> list[tuple[str, str, Connection]]:
    """(node, incarnation, connection) of every node connection to any server; `bus`: of the system account.

    Raises: BusUnavailable when the connection is closed.
    """
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox, lambda message: answers.put_nowait(message.data), wait=False)
    found: list[tuple[str, str, Connection]] = []
    try:
        await bus.publish(CONNZ, json.dumps({"limit": 65_536}).encode(), reply=inbox)
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
    """Whether any bus server has a connection of that incarnation. Raises: BusUnavailable."""
    bus = await open_system()
    try:
        connections = await list_connections(bus)
    finally:
        await bus.close()
    return any(found[:2] == (node, incarnation) for found in connections)
