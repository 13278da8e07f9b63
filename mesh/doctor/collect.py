"""Looks at this machine, its network and its node, for `queztl doctor`. Changes nothing; announces nothing.

Only gathers: what a fact means stands in `mesh/doctor/diagnose.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mesh.bus.server.binary import find_server
from mesh.discovery.announcement import MEMBER, Sighting
from mesh.discovery.identity import default_data_dir
from mesh.discovery.interfaces import usable_addresses
from mesh.discovery.mdns import REPEAT_S, Discovery, multicasts
from mesh.doctor.diagnose import Facts, Finding, diagnose
from mesh.errors import CannotStart
from mesh.messages import KindInfo
from mesh.node_api import API_PREFIX, send

ASK_WITHIN_S = 3.0
#: How long to listen for all there are, and for the first one, seconds: an answer to a question may get lost or come
#: late, so "nobody" is said only after each node had to repeat itself (every `REPEAT_S`, a fifth later at most).
LISTEN_S, PATIENCE_S = 2.5, 1.25 * REPEAT_S


async def examine(
    mesh_name: str = "queztl",
    *,
    interface: str = "",
    data: Path | None = None,
    api: str = "http://127.0.0.1:8000",
    version: str = "",
    listen_s: float = LISTEN_S,
    patience_s: float = PATIENCE_S,
) -> list[Finding]:
    """Everything that can be wrong, in words. Takes about `listen_s` seconds, and `patience_s` (where that is longer)
    when no member of that mesh is heard; raises nothing of its own.
    """
    folder = data or default_data_dir()
    choice = usable_addresses(interface)
    facts = Facts(mesh_name=mesh_name, version=version, choice=choice, data=str(folder), api=api.rstrip("/"))
    facts = replace(facts, multicast_fails_on=tuple(one for one in choice.addresses if not multicasts(one)))
    heard, (server, server_trouble), disk, document = await asyncio.gather(
        _listen(choice.addresses, mesh_name, listen_s, patience_s),
        asyncio.to_thread(_server),
        asyncio.to_thread(_disk, folder),
        asyncio.to_thread(_ask, facts.api),
    )
    seen, trouble, listened_s = heard
    urls = sorted({url for one in seen if _ours(one, mesh_name) for url in one.announcement.urls})
    answers = await asyncio.gather(*map(why_unreachable, urls))
    facts = replace(
        facts,
        seen=seen,
        discovery_trouble=trouble,
        listened_s=listened_s,
        reachable=tuple(zip(urls, answers, strict=True)),
        server=server,
        server_trouble=server_trouble,
        **disk,
        **document,
    )
    return diagnose(facts)


def _ours(sighting: Sighting, mesh_name: str) -> bool:
    return sighting.announcement.mesh_name == mesh_name and sighting.announcement.role == MEMBER


async def why_unreachable(url: str, timeout_s: float = 1.5) -> str:
    """Why nothing answers there: "" when something does, else refused, silent or no way."""
    try:
        parts = urlsplit(url)
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except (OSError, ValueError):
        return "no way"
    writer.close()
    return ""


async def _listen(
    addresses: tuple[str, ...], mesh_name: str, listen_s: float, patience_s: float
) -> tuple[tuple[Sighting, ...], str, float]:
    """Who was heard, why nobody can be, and how long was listened, seconds."""
    if not addresses:
        return (), "", 0.0
    discovery, began = Discovery(addresses), time.monotonic()
    await discovery.start()
    try:
        if not discovery.trouble:
            # not an event to wait for: that nobody else speaks is only known when the time is over
            await asyncio.sleep(listen_s)
            while not any(_ours(one, mesh_name) for one in discovery.sightings()):
                left_s = patience_s - (time.monotonic() - began)
                if left_s <= 0 or not await discovery.changed(left_s):
                    break
        return discovery.sightings(), discovery.trouble, time.monotonic() - began
    finally:
        await discovery.stop()


def _server() -> tuple[str, str]:
    try:
        found = find_server()
    except CannotStart as fault:
        return "", fault.message
    return f"nats-server {'.'.join(map(str, found.version))} ({found.path})", ""


def _disk(folder: Path) -> dict[str, Any]:
    """Whether a node could use `folder`, without making it."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    facts: dict[str, Any] = {"disk_free_bytes": shutil.disk_usage(there).free}
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return facts | {"data_trouble": f"{there} can't be written to."}
    try:
        with open(folder / "lock", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return facts | {"data_in_use_by": lock.read(20).strip() or "unknown"}
    except FileNotFoundError:
        pass
    except OSError as error:
        return facts | {"data_trouble": f"{folder} can't be read ({error.strerror or error})."}
    return facts


def _ask(api: str) -> dict[str, Any]:
    """What the node behind `api` says of itself and its mesh; nothing when it does not answer."""
    try:
        reply = send(f"{api}{API_PREFIX}/network/status", timeout_s=ASK_WITHIN_S)
        date = reply.headers.get("Date")
        return {"api_answers": True, **_read_status(reply.document(), api, date, time.time())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError):
        return {}


def _read_status(document: dict[str, Any], api: str, date: str | None, now: float) -> dict[str, Any]:
    """Facts in the answer to network/status. Raises: KeyError, TypeError, ValidationError when it is none."""
    nodes = document["registry"]["nodes"]
    mine = [one for one in nodes if one["api"].rstrip("/") == api] or (nodes if len(nodes) == 1 else [])
    kinds = mine[0]["capabilities"].get("kinds", []) if mine else []
    return {
        "api_mesh": str(document["mesh"]),
        "api_nodes": int(document["registry"]["total_nodes"]),
        # the header counts whole seconds
        "api_clock_ahead_s": parsedate_to_datetime(date).timestamp() + 0.5 - now if date else None,
        "kinds": msgspec.convert(kinds, tuple[KindInfo, ...]),
    }
