"""Nodes as processes on this machine: the provider that needs no account, so scaling works with nothing configured.

Each node is a real `python -m node` in a session of its own, so it outlives the daemon that started it. Whoever is
leader on this machine finds it by the tag on its command line (`--started-as MESH.OFFER.TOKEN.EXPIRES`); the provider
touches no process without that tag. A node is ended by SIGTERM to its pid, which lets it drain; a node that is still
there `KILL_AFTER_S` later is killed. Its files lie in a folder of its own, which is removed after it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from mesh.subjects import is_token
from scaling.domain.model import OWN, Offer
from scaling.providers.base import ENDING, RUNNING, Instance, LaunchRefused, NoCapacity, Order

log = logging.getLogger(__name__)

OFFER = "local"
TAG = "--started-as"
NODES_PER_CORE = 4
#: Memory that one more node takes at least, bytes: a daemon and its idle workers.
NODE_BYTES = 300 << 20
#: Memory that stays free, bytes.
SPARE_BYTES = 512 << 20
#: Seconds after SIGTERM at which a node that is still there is killed: longer than its own drain.
KILL_AFTER_S = 90.0
#: Assumed seconds from the order to the first heartbeat, until they have been measured.
START_S = 5.0
#: Seconds for which the folder of a node that is gone is kept: its log says why the node ended.
KEEP_FOLDER_S = 600.0
#: $0 is the log file, the rest the command; prints the pid.
_BACKGROUND = '"$@" </dev/null >>"$0" 2>&1 & echo $!'


def machine() -> str:
    """The name of this machine: what this provider's list covers."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}-{Path('/etc/machine-id').read_text(encoding='ascii').strip()[:8]}"
    return socket.gethostname()


def tag_of(order: Order) -> str:
    """The tag that a started node carries on its command line."""
    return f"{order.mesh_id}.{order.offer}.{order.token}.{order.expires_at:.0f}"


def read_tag(command: Sequence[str]) -> tuple[str, str, str, float] | None:
    """(mesh id, offer, token, expiry) of a command line that this provider made; None for any other one. Pure."""
    # PYTHON [-P] -m node --started-as TAG …: a shell that is about to run that is no node yet.
    words = [word for word in command[1:3] if word != "-P"] + list(command[3:6])
    if words[:3] != ["-m", "node", TAG] or len(words) < 4:
        return None
    parts = words[3].split(".")
    if len(parts) != 4 or not all(is_token(part) for part in parts) or not parts[3].isdigit():
        return None
    return parts[0], parts[1], parts[2], float(parts[3])


class LocalProvider:
    """`scaling.providers.base.Provider`, on this machine."""

    name, paid = "local", False

    def __init__(self, folder: Path, flags: Callable[[], Sequence[str]]) -> None:
        """`folder`: holds a folder for each node; `flags`: the flags that make a node like the one that starts it."""
        self.place = machine()
        self._folder, self._flags = folder, flags
        self._terminated_at: dict[str, float] = {}

    async def offers(self) -> tuple[Offer, ...]:
        """One offer: a process on this machine, as often as memory and cores allow."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        running = len(await asyncio.to_thread(_instances, ""))
        by_memory = max(0, psutil.virtual_memory().available - SPARE_BYTES) // NODE_BYTES
        available = max(0, min(cores * NODES_PER_CORE - running, by_memory))
        return (
            Offer(
                OFFER, self.name, "process", market=OWN, vcpus=cores, start_s=START_S, available=available,
                memory_gib=round(psutil.virtual_memory().total / (1 << 30), 1),
            ),
        )  # fmt: skip

    async def launch(self, order: Order) -> Instance:
        """See Provider."""
        if order.offer != OFFER:
            raise LaunchRefused(f"this machine offers {OFFER}, not {order.offer}")
        if not all(is_token(part) for part in (order.token, order.mesh_id)):
            raise LaunchRefused("the order's token or mesh id can't stand on a command line")
        for instance in await self.list(order.mesh_id):
            if instance.token == order.token:
                return instance
        try:
            return await asyncio.to_thread(self._start, order)
        except OSError as error:
            raise NoCapacity(f"this machine can't start another node: {error.strerror or error}") from None
        except (subprocess.CalledProcessError, ValueError) as error:
            raise NoCapacity(f"this machine can't start another node: {error}") from None

    def _start(self, order: Order) -> Instance:
        folder = self._folder / order.token
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        root = str(Path(__file__).resolve().parents[2])
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUEZTL_")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        labels = [word for name, text in sorted(order.labels.items()) for word in ("--label", f"{name}={text}")]
        command = [
            sys.executable, "-P", "-m", "node", TAG, tag_of(order), "--data", str(folder / "data"),
            "--api", "127.0.0.1:0", "--mesh", order.mesh_name, "--leave-alone", f"{order.dead_man_s:.0f}",
            *(word for url in order.join for word in ("--join", url)), *self._flags(), *labels,
            *(("--region", order.region) if order.region else ()),
        ]  # fmt: skip
        # The shell ends at once and leaves the node in the background: without a parent and in a session of its own,
        # the node outlives this daemon however that ends, and a Ctrl-C does not reach it.
        started = subprocess.run(
            ["/bin/sh", "-c", _BACKGROUND, str(folder / "node.log"), *command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, env=environment, cwd=folder, start_new_session=True, check=True,
        )  # fmt: skip
        pid = str(int(started.stdout))
        return Instance(pid, order.token, order.mesh_id, OFFER, RUNNING, time.time(), order.expires_at)

    async def list(self, mesh_id: str) -> tuple[Instance, ...]:
        """See Provider. Kills nodes that are overdue after SIGTERM, and removes the folders of nodes that are gone."""
        return await asyncio.to_thread(self._list, mesh_id)

    def _list(self, mesh_id: str) -> tuple[Instance, ...]:
        instances = _instances(mesh_id)
        now = time.monotonic()
        for instance in instances:
            terminated_at = self._terminated_at.get(instance.id)
            if terminated_at is not None and now - terminated_at > KILL_AFTER_S:
                log.warning("killing node process %s: SIGTERM was %.0f s ago", instance.id, now - terminated_at)
                _signal(instance, signal.SIGKILL)
        ids = {instance.id for instance in instances}
        self._terminated_at = {pid: at for pid, at in self._terminated_at.items() if pid in ids}
        self._remove_folders({instance.token for instance in instances}, time.time())
        return tuple(
            replace(instance, state=ENDING) if instance.id in self._terminated_at else instance
            for instance in instances
        )

    async def terminate(self, instance: str) -> None:
        """See Provider. Signals only processes that carry this provider's tag."""
        for running in await asyncio.to_thread(_instances, ""):
            # Once: a second SIGTERM makes a node leave at once and drop the work it holds.
            if running.id == instance and instance not in self._terminated_at:
                self._terminated_at[instance] = time.monotonic()
                _signal(running, signal.SIGTERM)

    def _remove_folders(self, tokens: set[str], now: float) -> None:
        """Remove the folders of nodes that are gone. `tokens`: those of the nodes that are there."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.name not in tokens and (folder / "node.log").is_file():
                with contextlib.suppress(OSError):
                    if now - (folder / "node.log").stat().st_mtime > KEEP_FOLDER_S:
                        shutil.rmtree(folder, ignore_errors=True)


def _instances(mesh_id: str) -> list[Instance]:
    """The node processes of this machine that carry the tag of that mesh ("": of any mesh)."""
    found: dict[str, Instance] = {}
    parents: dict[str, str] = {}
    for process in psutil.process_iter(["cmdline", "create_time", "ppid"]):
        tag = read_tag(process.info["cmdline"] or ())
        if tag is not None and mesh_id in ("", tag[0]):
            mesh, offer, token, expires_at = tag
            at = process.info["create_time"] or 0.0
            parents[str(process.pid)] = str(process.info["ppid"])
            found[str(process.pid)] = Instance(str(process.pid), token, mesh, offer, RUNNING, at, expires_at)
    # Between fork and exec, a child of a node shows the command line of the node itself.
    forks = {pid for pid, parent in parents.items() if parent in found and found[parent].token == found[pid].token}
    return [instance for pid, instance in found.items() if pid not in forks]


def _signal(instance: Instance, number: signal.Signals) -> None:
    """Signal exactly the process that was listed: its pid may belong to another process by now."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(int(instance.id))
        tag = read_tag(process.cmdline())
        if tag is not None and tag[2] == instance.token and abs(process.create_time() - instance.launched_at) < 2.0:
            process.send_signal(number)
