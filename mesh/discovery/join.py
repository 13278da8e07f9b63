"""The way into a mesh at start-up: look, dial, wait, or be the one that founds it.

The loop beside `candidacy.decide`: it announces what was decided, dials what was announced, and says in one
sentence why it waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from mesh.config import MeshConfig
from mesh.discovery.announcement import CANDIDATE, FOUNDING, SEEKER, Announcement
from mesh.discovery.founding import Found, Join, Me, Memory, Wait, decide
from mesh.discovery.mdns import Discovery

log = logging.getLogger(__name__)

#: An address that did not answer is dialled again after this, seconds.
UNREACHABLE_S = 3.0
#: This node looks in steps of this length, seconds, so that it notices when it stood still.
LISTEN_S = 0.1
#: A step that took so much longer than it should was time in which nothing could be heard, seconds.
DEAF_S = 0.05


async def find_mesh(
    discovery: Discovery,
    me: Me,
    config: MeshConfig,
    *,
    api: str = "",
    version: str = "",
    say: Callable[[str], None] = log.info,
) -> Found | Join:
    """Look for the mesh called `me.mesh_name` until there is one to join or this node has to found it.

    `discovery` is started; what this node announces meanwhile is set here (candidate, then founding), the
    caller announces `member` when it is in. `say` gets each new sentence about why it waits. The first
    URL of a Join answered when dialled just now. Without multicast the answer comes after the wait: Found,
    unless this node remembers a mesh. May wait for ever, for a mesh that it remembers: cancel it.
    """
    clock = time.monotonic
    role = SEEKER if me.mesh_id else CANDIDATE
    words = Announcement(
        me.mesh_name, me.mesh_id, me.key_fingerprint, me.node_id, (), role, api, version, supports=me.node_id
    )
    memory = Memory(started_at=clock())
    await discovery.announce(words)
    unreachable: dict[str, float] = {}
    said = ""
    while True:
        now = clock()
        unreachable = {url: since for url, since in unreachable.items() if now - since < UNREACHABLE_S}
        step, memory = decide(me, discovery.sightings(), memory, now, config, frozenset(unreachable))
        if isinstance(step, Found):
            await discovery.announce(replace(words, role=FOUNDING, supports=me.node_id))
            return step
        if isinstance(step, Join):
            first = await first_reachable(step.urls)
            if first:
                return replace(step, urls=(first, *(url for url in step.urls if url != first)))
            unreachable |= dict.fromkeys(step.urls, clock())
            continue
        said = await _wait(discovery, words, step, said, say)
        words = replace(words, supports=step.supports or me.node_id)
        if not me.mesh_id:
            memory = listened(memory, clock() - now, min(step.seconds, LISTEN_S), clock(), config.discovery_wait_s)


async def _wait(discovery: Discovery, words: Announcement, step: Wait, said: str, say: Callable[[str], None]) -> str:
    if step.supports and step.supports != words.supports:
        await discovery.announce(replace(words, supports=step.supports))
    sentence = step.why if step.seconds >= 1.0 else ""
    if sentence and sentence != said:
        say(sentence)
    await discovery.changed(min(step.seconds, LISTEN_S))
    return sentence or said


def listened(memory: Memory, took_s: float, asked_s: float, now: float, wait_s: float) -> Memory:
    """The memory after a wait of `asked_s` that took `took_s`: only time in which this node could hear counts.

    A process that got no time to run (a busy machine, a laptop's lid) has answers in its sockets that it has not read:
    it must not conclude that there is nobody. After a long sleep all it knows is stale.
    """
    deaf_s = took_s - asked_s
    if deaf_s > wait_s:
        return Memory(started_at=now)
    return replace(memory, started_at=memory.started_at + deaf_s) if deaf_s > DEAF_S else memory


async def first_reachable(urls: Iterable[str], timeout_s: float = 0.8) -> str:
    """The first of `urls` at whose host and port something accepts a TCP connection; "" when nothing does.

    All are tried at once. A URL without a port, or malformed, counts as unreachable.
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
    except (OSError, ValueError, TimeoutError):
        return ""
    writer.close()
    return url
