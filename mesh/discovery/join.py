"""Finding a mesh at startup: listen, dial, wait, or create the mesh.

The loop beside `founding.decide`: it announces what was decided, dials the announced addresses, and reports in one
sentence why it waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from mesh.config import MeshConfig
from mesh.discovery.announcement import CANDIDATE, FOUNDING, SEEKER, Announcement
from mesh.discovery.founding import Create, Join, LocalNode, Memory, Wait, decide
from mesh.discovery.mdns import Discovery

log = logging.getLogger(__name__)

#: An address that did not answer is dialled again after this, seconds.
UNREACHABLE_S = 3.0
#: The period of calls of `dial`, seconds.
DIAL_EVERY_S = 3.0
#: The node listens in steps of this length, seconds, so that it notices when it was suspended.
LISTEN_S = 0.1
#: A step that takes this much longer was time in which the node could not receive anything, seconds.
DEAF_S = 0.05


async def find_mesh(
    discovery: Discovery,
    me: LocalNode,
    config: MeshConfig,
    *,
    api: str = "",
    version: str = "",
    say: Callable[[str], None] = log.info,
    dial: Callable[[float], Awaitable[tuple[str, ...]]] | None = None,
) -> Create | Join:
    """Search for the mesh called `me.mesh_name`, until there is one to join or this node must create it.

    `discovery` must be started. This function sets what the node announces meanwhile (seeker or candidate, then
    founding); the caller announces `member` once it has joined. `say` is called with each new reason for waiting. The
    first URL of a Join has just answered. Without multicast the result is Create after the wait, unless this node
    remembers a mesh. It may wait without limit for a mesh that it remembers: cancel it. `dial(waited_s)` is called
    now and then during such a wait; it returns URLs of that mesh from other sources than mDNS, () while none answers.
    """
    clock = time.monotonic
    role = SEEKER if me.mesh_id else CANDIDATE
    announcement = Announcement(
        me.mesh_name, me.mesh_id, me.key_fingerprint, me.node_id, (), role, api, version, supports=me.node_id
    )
    memory = Memory(started_at=clock())
    await discovery.announce(announcement)
    unreachable: dict[str, float] = {}
    reported, dialled_at = "", clock()
    while True:
        now = clock()
        unreachable = {url: since for url, since in unreachable.items() if now - since < UNREACHABLE_S}
        step, memory = decide(me, discovery.sightings(), memory, now, config, frozenset(unreachable))
        if isinstance(step, Create):
            await discovery.announce(replace(announcement, role=FOUNDING, supports=me.node_id))
            return step
        if isinstance(step, Join):
            first = await first_reachable(step.urls)
            if first:
                return replace(step, urls=(first, *(url for url in step.urls if url != first)))
            unreachable |= dict.fromkeys(step.urls, clock())
            continue
        if dial is not None and now - dialled_at >= DIAL_EVERY_S:
            dialled_at = now
            if urls := await dial(now - memory.started_at):
                return Join(urls, me.mesh_id)
        reported = await _wait(discovery, announcement, step, reported, say)
        announcement = replace(announcement, supports=step.supports or me.node_id)
        if not me.mesh_id:
            memory = listened(memory, clock() - now, min(step.seconds, LISTEN_S), clock(), config.discovery_wait_s)


async def _wait(
    discovery: Discovery, announcement: Announcement, step: Wait, reported: str, say: Callable[[str], None]
) -> str:
    """Wait for the next step; the reason reported last."""
    if step.supports and step.supports != announcement.supports:
        await discovery.announce(replace(announcement, supports=step.supports))
    sentence = step.why if step.seconds >= 1.0 else ""
    if sentence and sentence != reported:
        say(sentence)
    await discovery.changed(min(step.seconds, LISTEN_S))
    return sentence or reported


def listened(memory: Memory, took_s: float, asked_s: float, now: float, wait_s: float) -> Memory:
    """The memory after a wait of `asked_s` seconds that took `took_s`: only time when the node could receive counts.

    A process that was suspended (by a busy machine, or a closed laptop) has unread answers in its sockets, so it must
    not conclude that there are no other nodes. After a long suspension all it knows is stale.
    """
    deaf_s = took_s - asked_s
    if deaf_s > wait_s:
        return Memory(started_at=now)
    return replace(memory, started_at=memory.started_at + deaf_s) if deaf_s > DEAF_S else memory


async def first_reachable(urls: Iterable[str], timeout_s: float = 0.8) -> str:
    """The first of `urls` whose host and port accept a TCP connection; "" when none does.

    All are tried at once. A malformed URL, or one without a port, counts as unreachable.
    """
    tries = [asyncio.create_task(_dial(url, timeout_s), name=f"dial {url}") for url in dict.fromkeys(urls)]
    try:
        for done in asyncio.as_completed(tries):
            if url := await done:
                return url
        return ""
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)


async def _dial(url: str, timeout_s: float) -> str:
    try:
        parts = urlsplit(url)
        if not parts.hostname or not parts.port:
            return ""
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, ValueError):
        return ""
    writer.close()
    return url
