"""Suspends the bus server of this node when its disk hangs: the loop beside `suspension.py`.

It runs in a thread with an event loop of its own, and touches no disk: whatever else of the node uses the disk that
hangs may hang with it. SIGKILL stops all goroutines of the server but those inside a write, so no heartbeat leaves it
any more, and the others elect. The process itself ends only when its disk works again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from mesh import decoding, subjects
from mesh.bus.server.bootstrap_client import Admin, AdminError
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.supervisor import BusServer
from mesh.bus.server.suspension import SUSPEND_AFTER_S, PeerState, reason_not_to_suspend
from mesh.decoding import Unreadable

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
#: The pause after the peers were asked and the server was not suspended, seconds.
_ASK_AGAIN_S = 1.0
_ANSWER_S = 2.0


@dataclass(frozen=True)
class Peer:
    """The bus server of another node."""

    node: str
    client_urls: tuple[str, ...]


class HangWatch:
    """`start()`, then `close()`. `peers()`: the other bus servers; it is called in the thread of the watch."""

    def __init__(self, server: BusServer, peers: Callable[[], Sequence[Peer]]) -> None:
        self._server, self._peers = server, peers
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=lambda: asyncio.run(self._run()), name="hang watch", daemon=True).start()

    def close(self) -> None:
        """End soon."""
        self._closing.set()

    async def _run(self) -> None:
        while not self._closing.is_set():
            pause_s = _LOOK_EVERY_S
            if self._server.disk.hangs_s >= SUSPEND_AFTER_S and self._server.is_ready:
                await self._decide()
                pause_s = _ASK_AGAIN_S
            await asyncio.sleep(pause_s)

    async def _decide(self) -> None:
        hangs_s, peers = self._server.disk.hangs_s, self._peers()
        password = self._server.address.system_password
        states = await asyncio.gather(*(_ask(peer, password) for peer in peers))
        # A process that was frozen finds a write that took long, and finishes it while the peers are asked.
        if self._closing.is_set() or self._server.disk.hangs_s < SUSPEND_AFTER_S:
            return
        reason = reason_not_to_suspend(hangs_s, states)
        if not reason:
            self._server.suspend()
        log.log(
            logging.INFO if reason else logging.ERROR,
            "the disk of the bus server has not finished a write for %.1f s; the server %s",
            hangs_s,
            f"goes on: {reason}" if reason else "is ended, so that the others lead",
        )


async def _ask(peer: Peer, password: str) -> PeerState:
    """The state of a peer, within about _ANSWER_S; each of its addresses is tried."""
    for url in peer.client_urls:
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await _ask_at(parts.hostname or "", parts.port or 0, peer.node, password)
        except (AdminError, OSError, ValueError):  # a TimeoutError is an OSError
            continue
    return PeerState()


async def _ask_at(host: str, port: int, node: str, password: str) -> PeerState:
    """Raises: AdminError, OSError, ValueError."""
    size, wrote_ago_s = await asyncio.gather(_group_size(host, port, password), _wrote_ago_s(host, port, node))
    return PeerState(size > 0, size, wrote_ago_s)


async def _group_size(host: str, port: int, password: str) -> int:
    """The size of the meta group in the view of the server there; 0 when it is no member of one."""
    system = await Admin.open(host, port, SYSTEM_USER, password)
    try:
        answer = await system.request(f"$SYS.REQ.SERVER.{system.server_id}.JSZ", {})
        return int(((answer.get("data") or {}).get("meta_cluster") or {}).get("cluster_size") or 0)
    finally:
        await system.close()


async def _wrote_ago_s(host: str, port: int, node: str) -> float:
    """How long ago the last write began that the disk of that node has finished; infinite when none has."""
    admin = await Admin.open(host, port)
    try:
        found = decoding.disk_answer(await admin.ask(subjects.disk(node)))
    finally:
        await admin.close()
    if isinstance(found, Unreadable) or found.node != node or found.wrote_ago_s < 0:
        return math.inf
    return found.wrote_ago_s
