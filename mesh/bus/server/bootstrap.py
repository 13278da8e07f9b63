"""How a lone machine gets a JetStream cluster of one that can later become three.

A server that starts alone and joins a cluster later loses its streams, and one that starts clustered does nothing
until a peer is there. So the first server is started with a throw-away *boot* peer, both being each other's only
route (the expected group size is the number of configured routes); when the first one leads, it removes the boot
peer while both live: a group of one, which needs nobody's vote.

A kill at any moment leaves no marker, and what is half created holds nobody's data: the next start wipes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mesh.bus.server.bootstrap_client import Admin, AdminError
from mesh.bus.server.config import SYSTEM_USER, VOTER_TAG, ServerConfig, local_host, render
from mesh.bus.server.process import ServerProcess
from mesh.errors import CannotStart

_POLL_S = 0.02
_LOOK_TIMEOUT_S = 1.0
#: A leader so new that it does not answer yet ignores what it is asked: asked again soon, which does no harm.
_STEP_TIMEOUT_S = 0.1

Step = Literal["wait", "step_down", "remove", "done"]


class NoLeader(CannotStart):
    """The bus could not be created: its servers agreed on no leader."""


@dataclass(frozen=True)
class MetaGroup:
    """The meta group as one server sees it. `peers` are the others' names; the leader alone knows them all."""

    leader: str
    size: int
    peers: tuple[str, ...]


def next_step(group: MetaGroup | None, real: str, boot: str) -> Step:
    """The next step of the creation, from what the real server says of the meta group (None: nothing yet)."""
    if group is None or not group.leader:
        return "wait"
    if group.leader == boot:
        return "step_down"
    if group.leader != real:
        return "wait"
    if boot in group.peers:
        return "remove"
    # A leader that doesn't know its peer yet has a size of two all the same: alone is alone only at size one.
    return "done" if group.size == 1 else "wait"


def meta_group(jsz: dict[str, Any]) -> MetaGroup | None:
    """The meta group in a server's JSZ answer, or None when it runs none yet."""
    cluster = (jsz.get("data") or {}).get("meta_cluster")
    if not cluster:
        return None
    peers = tuple(str(peer.get("name", "")) for peer in cluster.get("replicas") or ())
    return MetaGroup(str(cluster.get("leader") or ""), int(cluster.get("cluster_size") or 0), peers)


async def create(
    real: ServerProcess,
    config: ServerConfig,
    boot: ServerProcess,
    boot_config: ServerConfig,
    timeout_s: float,
) -> None:
    """Start `real` as the only member of a new meta group; afterwards it runs, and nothing is left of `boot`.

    Raises: NoLeader when that did not come about within `timeout_s`, CannotStart when a server exited or refused;
    nothing runs then.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _until_alone(real, config, boot, boot_config)
    except TimeoutError:
        await real.stop(signal.SIGKILL)
        raise NoLeader(
            f"the bus could not be created in {real.folder}: no leader within {timeout_s:g} s, see {real.log_file}"
        ) from None
    except BaseException:
        await real.stop(signal.SIGKILL)
        raise
    finally:
        await boot.stop(signal.SIGKILL)  # its store goes too: nothing to put in order
        await asyncio.to_thread(discard, boot, boot_config)
    await asyncio.to_thread(write_through, config.store)


async def _until_alone(
    real: ServerProcess, config: ServerConfig, boot: ServerProcess, boot_config: ServerConfig
) -> None:
    await real.launch(render(config))
    # The boot peer only when it listens: two that start at once may miss each other, and try again after 1 s.
    admin = await _connect(config, real)
    try:
        await boot.launch(render(boot_config))
        while True:
            step = next_step(await _look(admin), config.name, boot_config.name)
            if step == "done":
                return
            with contextlib.suppress(TimeoutError):  # not answered: looked at again, asked again
                if step == "step_down":
                    body = {"placement": {"tags": [VOTER_TAG]}}
                    await admin.request("$JS.API.META.LEADER.STEPDOWN", body, timeout_s=_STEP_TIMEOUT_S)
                elif step == "remove":
                    body = {"peer": boot_config.name}
                    await admin.request("$JS.API.SERVER.REMOVE", body, timeout_s=_STEP_TIMEOUT_S)
            await until_exit(_POLL_S, real, boot)
    except (AdminError, OSError) as error:
        raise CannotStart(f"the bus could not be created: {error}; its log: {real.last_words()}") from None
    finally:
        await admin.close()


async def _look(admin: Admin) -> MetaGroup | None:
    try:
        subject = f"$SYS.REQ.SERVER.{admin.server_id}.JSZ"
        return meta_group(await admin.request(subject, {}, timeout_s=_LOOK_TIMEOUT_S))
    except TimeoutError:
        return None


async def _connect(config: ServerConfig, process: ServerProcess) -> Admin:
    host = local_host(config.host)
    while True:
        try:
            return await Admin.open(host, config.client_port, SYSTEM_USER, config.password)
        except (AdminError, OSError):  # a TimeoutError is an OSError
            await until_exit(_POLL_S, process)


async def until_exit(limit_s: float, *processes: ServerProcess) -> None:
    """Pass `limit_s`. Raises: CannotStart, with its last words, as soon as one of `processes` has exited."""
    exits = [asyncio.ensure_future(process.wait()) for process in processes]
    try:
        done, _ = await asyncio.wait(exits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for exit_ in exits:
            exit_.cancel()
    for process, exit_ in zip(processes, exits, strict=True):
        if exit_ in done:
            raise CannotStart(f"nats-server exited at once: {process.last_words()}")


def discard(process: ServerProcess, config: ServerConfig) -> None:
    """Remove what a throw-away server kept."""
    if config.store:
        shutil.rmtree(config.store, ignore_errors=True)
    for file in process.folder.glob(f"{process.name}.*"):
        file.unlink(missing_ok=True)


def write_through(folder: Path | None) -> None:
    """Put every file under `folder` on the disk, so that a power cut after its creation finds it whole."""
    for parent, _, names in os.walk(folder) if folder else ():
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):  # the server goes on writing meanwhile
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
