"""The data directory of a node: its identity across restarts, and the mesh it belongs to.

One node owns one directory while its process lives: an exclusive lock, which the kernel releases when the process ends.
The directory contains only what lets a node come back under its id. Losing it loses that id and, on a node that hosts a
bus server, the store of that server.
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

from mesh import data_folder
from mesh.errors import CannotStart
from mesh.files import write_atomically
from mesh.subjects import is_token

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class MeshIdentity:
    """The identity of a mesh. `founded_at`: Unix seconds; `founder`: id of the node that created the mesh."""

    id: str
    name: str
    founded_at: float
    founder: str


def new_token(prefix: str) -> str:
    """A new id: `prefix` and 8 random base32 characters (40 bits), lower case."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(8))


def default_data_dir() -> Path:
    """The default data directory of a node."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "queztl"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "queztl"


class DataDir:
    """An open, locked data directory, from `open_data_dir`. `close()` releases the lock."""

    def __init__(self, path: Path, lock: IO[str], stored: dict[str, Any]) -> None:
        self.path = path
        self._lock = lock
        self.node_id: str = stored["node_id"]
        self.incarnation: str = new_token("i")
        """New at every start: distinguishes this process from its predecessors of the same id."""
        self.mesh: MeshIdentity | None = MeshIdentity(**stored["mesh"]) if stored.get("mesh") else None
        self.bus_urls: tuple[str, ...] = tuple(stored.get("bus_urls", ()))
        """The last known URLs of the bus."""
        self.epoch: str = str(stored.get("epoch", ""))
        """The epoch of that mesh; "" when this node has not worked there yet."""
        self.wire_version: int = int(stored.get("wire_version", 0))
        """The wire version of that mesh, in which this node has worked; 0: not known."""

    @property
    def bus_folder(self) -> Path:
        """The folder of this node's bus server, if it hosts one."""
        return self.path / data_folder.BUS

    def remember_mesh(self, mesh: MeshIdentity, bus_urls: Sequence[str]) -> None:
        """Store `mesh` and the URLs of its bus for the next start. Raises: OSError."""
        if self.mesh is None or mesh.id != self.mesh.id:
            self.epoch, self.wire_version = "", 0
        if (mesh, tuple(bus_urls)) != (self.mesh, self.bus_urls):
            self.mesh, self.bus_urls = mesh, tuple(bus_urls)
            self._store()

    def remember_record(self, epoch: str, wire_version: int) -> None:
        """Store what the record of the mesh says, once this node works there. Raises: OSError."""
        if (epoch, wire_version) != (self.epoch, self.wire_version):
            self.epoch, self.wire_version = epoch, wire_version
            self._store()

    def close(self) -> None:
        """Release the directory for another process."""
        self._lock.close()

    def _store(self) -> None:
        stored = {
            "version": 1,
            "node_id": self.node_id,
            "mesh": asdict(self.mesh) if self.mesh else None,
            "bus_urls": list(self.bus_urls),
            "epoch": self.epoch,
            "wire_version": self.wire_version,
        }
        write_atomically(self.path / data_folder.IDENTITY, json.dumps(stored, indent=1).encode())


def open_data_dir(path: Path) -> DataDir:
    """Open `path` as the data directory of this node, and create it if it does not exist.

    Raises: CannotStart when another node uses it, it can't be written, or its content is damaged.
    """
    path = path.expanduser().absolute()
    lock = _lock(path)
    try:
        data_folder.prepare(path)
        stored = read_stored(path / data_folder.IDENTITY)
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
        lock = open(path / data_folder.LOCK, "a+", encoding="ascii")  # noqa: SIM115 - held until the process ends
    except OSError as error:
        raise _not_writable(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        lock.close()
        raise CannotStart(f"{path} is in use by another node (pid {pid}); give this one another --data") from None
    with contextlib.suppress(OSError):  # the pid is only for the message above; a full disk may refuse it
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def read_stored(file: Path) -> dict[str, Any] | None:
    """The content of `file`; None when it does not exist. Raises: CannotStart."""
    try:
        stored = json.loads(file.read_bytes())
        if not is_token(stored["node_id"]):
            raise ValueError("no node id")
        if stored.get("mesh"):
            MeshIdentity(**stored["mesh"])
        int(stored.get("wire_version", 0))
        return stored
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise CannotStart(
            f"{file} is damaged or from another version; move it away (this node gets a new name) "
            "or give another --data"
        ) from None


def _try_writing(path: Path) -> None:
    write_atomically(path / data_folder.LAST_START, str(time.time()).encode())


def _not_writable(path: Path, error: OSError) -> CannotStart:
    return CannotStart(f"{path} can't be written ({error.strerror or error}); give another --data")
