"""Collects facts about this machine, its network and its node for `queztl doctor`. Changes and announces nothing.

`mesh/doctor/diagnose.py` explains what the facts mean.
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

from mesh import data_folder
from mesh.bus.server.binary import find_server
from mesh.cluster.hosted_bus import describe, read_hosted
from mesh.cluster.waiting import advice
from mesh.discovery.announcement import MEMBER, Sighting
from mesh.discovery.identity import default_data_dir
from mesh.discovery.interfaces import usable_addresses
from mesh.discovery.mdns import REPEAT_S, Discovery, multicasts
from mesh.doctor.diagnose import Facts, Finding, diagnose
from mesh.errors import CannotStart, QueztlError
from mesh.messages import KindInfo
from mesh.node_api import API_PREFIX, send
from mesh.views import WaitingView

ASK_WITHIN_S = 3.0
#: The status of a node that has not joined its mesh and does not know yet what it waits for.
UNAVAILABLE = 503
#: How long to listen for all nodes, and for the first one, seconds. An answer may be late or lost, so "no node" is
#: reported only after every node must have repeated its announcement (every `REPEAT_S`, a fifth later at most).
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
    """All findings. Takes about `listen_s` seconds, or up to `patience_s` when no member of the mesh is heard.

    `api`: http://HOST:PORT of a node; `data`: the data directory, None for the default. Raises nothing of its own.
    """
    folder = data or default_data_dir()
    choice = usable_addresses(interface)
    facts = Facts(mesh_name=mesh_name, version=version, choice=choice, data=str(folder), api=api.rstrip("/"))
    facts = replace(facts, multicast_fails_on=tuple(address for address in choice.addresses if not multicasts(address)))
    heard, (server, server_trouble), disk, document = await asyncio.gather(
        _listen(choice.addresses, mesh_name, listen_s, patience_s),
        asyncio.to_thread(_find_server),
        asyncio.to_thread(_check_disk, folder),
        asyncio.to_thread(_read_api, facts.api),
    )
    seen, trouble, listened_s = heard
    urls = sorted({url for sighting in seen if _ours(sighting, mesh_name) for url in sighting.announcement.urls})
    answers = await asyncio.gather(*map(why_unreachable, urls))
    facts = replace(
        facts,
        seen=seen,
        discovery_trouble=trouble,
        listened_s=listened_s,
        reachable=tuple(zip(urls, answers, strict=True)),
        server=server,
        server_trouble=server_trouble,
        hosted=() if document.get("api_answers") or disk.get("data_in_use_by") else _describe_hosted(folder),
        **disk,
        **document,
    )
    return diagnose(facts)


def _ours(sighting: Sighting, mesh_name: str) -> bool:
    return sighting.announcement.mesh_name == mesh_name and sighting.announcement.role == MEMBER


async def why_unreachable(url: str, timeout_s: float = 1.5) -> str:
    """Why nothing answers at `url`: "" when something does, else refused, silent or no way."""
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
    """(the nodes heard, why none can be heard, how long it listened in seconds)"""
    if not addresses:
        return (), "", 0.0
    discovery, began = Discovery(addresses), time.monotonic()
    await discovery.start()
    try:
        if not discovery.trouble:
            # there is no event to wait for: that there are no more nodes is known only when the time is over
            await asyncio.sleep(listen_s)
            while not any(_ours(sighting, mesh_name) for sighting in discovery.sightings()):
                left_s = patience_s - (time.monotonic() - began)
                if left_s <= 0 or not await discovery.changed(left_s):
                    break
        return discovery.sightings(), discovery.trouble, time.monotonic() - began
    finally:
        await discovery.stop()


def _find_server() -> tuple[str, str]:
    try:
        found = find_server()
    except CannotStart as fault:
        return "", fault.message
    return f"nats-server {'.'.join(map(str, found.version))} ({found.path})", ""


def _check_disk(folder: Path) -> dict[str, Any]:
    """Whether a node could use `folder`, without creating it."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    facts: dict[str, Any] = {"disk_free_bytes": shutil.disk_usage(existing).free}
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return facts | {"data_trouble": f"{existing} can't be written to."}
    try:
        with open(folder / data_folder.LOCK, encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return facts | {"data_in_use_by": lock.read(20).strip() or "unknown"}
    except FileNotFoundError:
        pass
    except OSError as error:
        return facts | {"data_trouble": f"{folder} can't be read ({error.strerror or error})."}
    return facts


def _describe_hosted(folder: Path) -> tuple[str, ...]:
    """What the data directory says of the bus server in it; empty when it holds none."""
    try:
        return tuple(describe(read_hosted(folder)))
    except (QueztlError, OSError):
        return ()


def _read_api(api: str) -> dict[str, Any]:
    """Facts from the network status of the node at `api`; empty when it does not answer."""
    try:
        reply = send(f"{api}{API_PREFIX}/network/status", timeout_s=ASK_WITHIN_S)
        if reply.status == UNAVAILABLE:
            return {"api_answers": True, "api_waits": str(reply.document()["error"]["message"]).rstrip(".")}
        date = reply.headers.get("Date")
        return {"api_answers": True, **_read_status(reply.document(), api, date, time.time())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError):
        return {}


def _read_status(document: dict[str, Any], api: str, date: str | None, now: float) -> dict[str, Any]:
    """Facts in the document of network/status. Raises: KeyError, TypeError, ValidationError when it is malformed."""
    nodes = document["registry"]["nodes"]
    own = [node for node in nodes if node["api"].rstrip("/") == api] or (nodes if len(nodes) == 1 else [])
    kinds = own[0]["capabilities"].get("kinds", []) if own else []
    if waiting := document.get("waiting"):
        view = msgspec.convert(waiting, WaitingView)
        return {"api_waits": view.reason, "api_if_lost": advice(view)}
    return {
        "api_mesh": str(document["mesh"]),
        "api_nodes": int(document["registry"]["total_nodes"]),
        # the header has whole seconds
        "api_clock_ahead_s": parsedate_to_datetime(date).timestamp() + 0.5 - now if date else None,
        "kinds": msgspec.convert(kinds, tuple[KindInfo, ...]),
    }
