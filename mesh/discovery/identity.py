"""A node's data directory: who this node is across restarts, and which mesh it belongs to.

One node owns one directory for as long as its process lives (an exclusive lock the kernel drops when the process
dies, however it dies). What is kept here is only what lets a node come back as itself; losing the directory loses
a name and, on a node that hosts the bus, the bus' store: no other node keeps anything of worth in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from mesh.errors import CannotStart
from mesh.files import write_atomically
from mesh.subjects import is_token

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class MeshIdentity:
    """Which mesh this is. `founded_at` in seconds since 1970; `founder` is the founding node's id."""

    id: str
    name: str
    founded_at: float
    founder: str


def new_token(prefix: str) -> str:
    """A fresh id: `prefix` and 8 random base32 characters (40 bits), lower case."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(8))


def default_data_dir() -> Path:
    """Where a node keeps its data unless told otherwise."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "queztl"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "queztl"


class DataDir:
    """An opened, locked data directory; get one from `open_data_dir`. `close()` gives the lock back."""

    def __init__(self, path: Path, lock: IO[str], stored: dict[str, Any]) -> None:
        self.path = path
        self._lock = lock
        self.node_id: str = stored["node_id"]
        self.incarnation: str = new_token("i")
        """Fresh at every start: tells this process from its predecessor of the same id."""
        self.mesh: MeshIdentity | None = MeshIdentity(**stored["mesh"]) if stored.get("mesh") else None
        self.bus_urls: tuple[str, ...] = tuple(stored.get("bus_urls", ()))
        """Where the bus was last seen."""

    @property
    def bus_folder(self) -> Path:
        """Where this node's bus server keeps its store, if it hosts one."""
        return self.path / "bus"

    def remember_mesh(self, mesh: MeshIdentity, bus_urls: Sequence[str]) -> None:
        """Keep `mesh` and where its bus is, for the next start. Raises: OSError."""
        if (mesh, tuple(bus_urls)) != (self.mesh, self.bus_urls):
            self.mesh, self.bus_urls = mesh, tuple(bus_urls)
            self._store()

    def forget_mesh(self) -> None:
        """Belong to no mesh any more. Raises: OSError."""
        self.mesh, self.bus_urls = None, ()
        self._store()

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()

    def _store(self) -> None:
        stored = {
            "version": 1,
            "node_id": self.node_id,
            "mesh": asdict(self.mesh) if self.mesh else None,
            "bus_urls": list(self.bus_urls),
        }
        write_atomically(self.path / "node.json", json.dumps(stored, indent=1).encode())


def open_data_dir(path: Path) -> DataDir:
    """Open `path` as this node's data directory, making it when it is not there.

    Raises: CannotStart when another node uses it, it can't be written, or what it holds is not ours.
    """
    path = path.expanduser().absolute()
    lock = _lock(path)
    try:
        stored = _read(path / "node.json")
        opened = DataDir(path, lock, stored or {"node_id": new_token("n")})
        if stored is None:
            opened._store()
        else:
            _try_writing(path)
        return opened
    except OSError as error:
        lock.close()
        raise _not_writable(path, error) from None
    except BaseException:
        lock.close()
        raise


def _lock(path: Path) -> IO[str]:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(path / "lock", "a+", encoding="ascii")  # noqa: SIM115 - held for the process' life
    except OSError as error:
        raise _not_writable(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        lock.close()
        raise CannotStart(f"{path} is in use by another node (pid {pid}); give this one another --data") from None
    with contextlib.suppress(OSError):  # the pid is for the sentence above only: a full disk may refuse it
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _read(file: Path) -> dict[str, Any] | None:
    """What `file` holds, or None when there is none yet."""
    try:
        stored = json.loads(file.read_bytes())
        if not is_token(stored["node_id"]):
            raise ValueError("no node id")
        if stored.get("mesh"):
            MeshIdentity(**stored["mesh"])
        return stored
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise CannotStart(
            f"{file} is damaged or from another version; move it away (this node gets a new name) "
            "or give another --data"
        ) from None


def _try_writing(path: Path) -> None:
    write_atomically(path / "started", str(time.time()).encode())


def _not_writable(path: Path, error: OSError) -> CannotStart:
    return CannotStart(f"{path} can't be written ({error.strerror or error}); give another --data")
