"""Nodes as processes on this machine: the provider that needs no account, so scaling works with nothing configured.

Each node is a real `python -m node` in a session of its own: it outlives the daemon that started it, and whoever is
master on this machine finds it again by the tag on its command line (`--started-as MESH.OFFER.TOKEN.EXPIRES`), which is
also what keeps its hands off every other process. A node is ended by SIGTERM to its pid, which lets it drain; what has
not gone `KILL_AFTER_S` later is killed. Its files lie in a folder of its own, which goes when it has ended.
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
from pathlib import Path

import psutil

from mesh.subjects import is_token
from scaling.domain.model import OWN, Offer
from scaling.providers.base import ENDING, RUNNING, Instance, LaunchRefused, NoCapacity, Order

log = logging.getLogger(__name__)

OFFER = "local"
TAG = "--started-as"
#: What one more node takes at least, bytes: a daemon and its idle workers.
NODE_BYTES = 300 << 20
#: Memory that is left alone, bytes.
SPARE_BYTES = 512 << 20
#: A node that was told to end and is still there after this long is killed, seconds: longer than its own drain.
KILL_AFTER_S = 90.0
#: From the order to the first beat where nothing has been measured yet, seconds.
START_S = 5.0
#: The folder of a node that is gone is kept for this long, seconds: its log says why it went.
KEEP_FOLDER_S = 600.0
#: $0 is the log, the rest the command; says the pid.
_BACKGROUND = '"$@" </dev/null >>"$0" 2>&1 & echo $!'


def machine() -> str:
    """This machine's name, as far as the provider's list reaches."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}-{Path('/etc/machine-id').read_text(encoding='ascii').strip()[:8]}"
    return socket.gethostname()


def tag_of(order: Order) -> str:
    """What a started node carries on its command line."""
    return f"{order.mesh_id}.{order.offer}.{order.token}.{order.expires_at:.0f}"


def read_tag(command: Sequence[str]) -> tuple[str, str, str, float] | None:
    """(mesh id, offer, token, expiry) of a command line that this provider made; None for every other one. Pure."""
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

    def __init__(
        self,
        folder: Path,
        flags: Callable[[], Sequence[str]],
        nodes_per_core: int = 4,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: where each node gets a folder of its own; `flags`: how the node that starts them runs itself."""
        self.place = machine()
        self._folder, self._flags, self._per_core, self._clock = folder, flags, nodes_per_core, clock
        self._told_to_end: dict[str, float] = {}

    async def offers(self) -> tuple[Offer, ...]:
        """One: a process here, as often as memory and cores allow."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        there = len(await asyncio.to_thread(_started, ""))
        by_memory = max(0, psutil.virtual_memory().available - SPARE_BYTES) // NODE_BYTES
        available = max(0, min(cores * self._per_core - there, by_memory))
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
        for one in await self.list(order.mesh_id):
            if one.token == order.token:
                return one
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
        # In the background of a shell that ends at once: nobody's child and in a session of its own, it outlives this
        # daemon whatever that is ended by, and a Ctrl-C here is none there.
        started = subprocess.run(
            ["/bin/sh", "-c", _BACKGROUND, str(folder / "node.log"), *command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, env=environment, cwd=folder, start_new_session=True, check=True,
        )  # fmt: skip
        now = self._clock()
        pid = str(int(started.stdout))
        return Instance(pid, order.token, order.mesh_id, OFFER, RUNNING, now, order.expires_at)

    async def list(self, mesh_id: str) -> tuple[Instance, ...]:
        """See Provider."""
        return await asyncio.to_thread(self._list, mesh_id)

    def _list(self, mesh_id: str) -> tuple[Instance, ...]:
        there = _started(mesh_id)
        now = self._clock()
        for one in there:
            asked_at = self._told_to_end.get(one.id)
            if asked_at is not None and now - asked_at > KILL_AFTER_S:
                log.warning("node process %s was told to end %.0f s ago and is killed", one.id, now - asked_at)
                _signal(one, signal.SIGKILL)
        tokens = {one.token for one in there}
        self._told_to_end = {one.id: self._told_to_end[one.id] for one in there if one.id in self._told_to_end}
        self._clear(tokens, now)
        return tuple(
            Instance(one.id, one.token, one.mesh_id, one.offer, ENDING, one.launched_at, one.expires_at)
            if one.id in self._told_to_end else one
            for one in there
        )  # fmt: skip

    async def terminate(self, instance: str) -> None:
        """See Provider. Only what carries this provider's tag is ever signalled."""
        for one in await asyncio.to_thread(_started, ""):
            # Once: for a node a second SIGTERM means to leave at once, with work in its hands.
            if one.id == instance and instance not in self._told_to_end:
                self._told_to_end[instance] = self._clock()
                _signal(one, signal.SIGTERM)

    def _clear(self, tokens: set[str], now: float) -> None:
        """Remove the folders of nodes that are gone."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.name not in tokens and (folder / "node.log").is_file():
                with contextlib.suppress(OSError):
                    if now - (folder / "node.log").stat().st_mtime > KEEP_FOLDER_S:
                        shutil.rmtree(folder, ignore_errors=True)


def _started(mesh_id: str) -> list[Instance]:
    """Every node process of this machine that carries the tag of that mesh ("": of any)."""
    found, parents = {}, {}
    for process in psutil.process_iter(["cmdline", "create_time", "ppid"]):
        tag = read_tag(process.info["cmdline"] or ())
        if tag is not None and mesh_id in ("", tag[0]):
            mesh, offer, token, expires_at = tag
            at = process.info["create_time"] or 0.0
            parents[str(process.pid)] = str(process.info["ppid"])
            found[str(process.pid)] = Instance(str(process.pid), token, mesh, offer, RUNNING, at, expires_at)
    # Between its fork and its exec a node's child shows the command line of the node itself.
    copies = {one for one, parent in parents.items() if parent in found and found[parent].token == found[one].token}
    return [one for name, one in found.items() if name not in copies]


def _signal(one: Instance, number: signal.Signals) -> None:
    """Signal exactly the process that was seen: a pid may be somebody else's by now."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(int(one.id))
        tag = read_tag(process.cmdline())
        if tag is not None and tag[2] == one.token and abs(process.create_time() - one.launched_at) < 2.0:
            process.send_signal(number)
