"""The folder a bus server keeps on disk, and the marker that says it was created completely.

The marker is written last. Without it, the folder is what an interrupted creation left: it holds
nobody's data and is wiped. With it, the folder is the store of a mesh, and nothing here ever removes it.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mesh.errors import CannotStart
from mesh.files import write_atomically
from mesh.subjects import host_of

MARKER = "founded.json"
MINIMUM_FREE_BYTES = 100 * 1000 * 1000


#: (address, port) where other servers reach a bus server.
Route = tuple[str, int]


@dataclass(frozen=True)
class Member:
    """Another server of the mesh."""

    name: str
    routes: tuple[Route, ...] = ()
    """Where it was when it was last heard."""


@dataclass(frozen=True)
class BusMarker:
    """What a bus starts again with: the names, which are part of its store, and the ports if they are free."""

    mesh_id: str
    server_name: str
    client_port: int
    cluster_port: int
    witness_port: int
    """Where the server listens for its witness, on loopback."""
    peers: tuple[Route, ...] = ()
    """Where the other servers of the mesh are, as last heard."""
    members: tuple[Member, ...] = ()
    """The other servers of the mesh. Empty in folders of earlier versions, which kept only `peers`."""

    @property
    def others(self) -> tuple[str, ...]:
        """The ids of the nodes that run the other servers, sorted."""
        return tuple(sorted({host_of(member.name) for member in self.members}))


def read_marker(folder: Path) -> BusMarker | None:
    """The marker of the bus in `folder`; None when no bus was created there. Raises: CannotStart when it is damaged."""
    file = folder / MARKER
    try:
        stored = json.loads(file.read_bytes())
        stored_members = stored.get("members", ())
        members = tuple(Member(str(member["name"]), _routes(member["routes"])) for member in stored_members)
        required = {name: stored[name] for name in BusMarker.__dataclass_fields__ if name not in ("peers", "members")}
        return BusMarker(**required, peers=_routes(stored.get("peers", ())), members=members)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise CannotStart(
            f"{file} is damaged; restore it from a copy, or move {folder} away to create a new mesh"
        ) from None


def _routes(stored: Iterable[Sequence[Any]]) -> tuple[Route, ...]:
    return tuple((str(host), int(port)) for host, port in stored)


def write_marker(folder: Path, marker: BusMarker) -> None:
    """Store `marker`. Raises: OSError."""
    if read_marker(folder) != marker:
        write_atomically(folder / MARKER, json.dumps({"version": 1, **asdict(marker)}, indent=1).encode())


def prepare(folder: Path) -> None:
    """Make `folder` when it is not there. Raises: CannotStart when it can't be written or the disk is full."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < MINIMUM_FREE_BYTES:
            raise CannotStart(
                f"the disk of {folder} is full ({free // 1_000_000} MB free, "
                f"{MINIMUM_FREE_BYTES // 1_000_000} MB needed); make room or give another --data"
            )
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CannotStart(f"{folder} can't be written ({error.strerror or error}); give another --data") from None


def wipe(folder: Path) -> None:
    """Remove what an interrupted creation left. Raises: OSError."""
    assert not (folder / MARKER).exists(), "a created folder is never wiped"
    for entry in folder.iterdir():
        if entry.name == "store.removed":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def put_aside(folder: Path) -> None:
    """Forget what was created here: its server was taken out of the mesh. The store is kept, once, under another name,
    until the next one is put aside. Raises: OSError.

    A store without a marker, as after a request to join servers that are not there, is removed: it would take the
    place of one that is kept.
    """
    was_complete = (folder / MARKER).exists()
    (folder / MARKER).unlink(missing_ok=True)
    aside, store = folder / "store.removed", folder / "store"
    if not was_complete:
        shutil.rmtree(store, ignore_errors=True)
        return
    shutil.rmtree(aside, ignore_errors=True)
    if store.exists():
        store.rename(aside)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; the port is not reserved."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nats-server does
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_port(host: str, preferred: int = 0, taken: tuple[int, ...] = ()) -> int:
    """`preferred` when it is free, else any free port, never one of `taken`.

    Raises: CannotStart when `host` is no address of this machine.
    """
    if preferred and preferred not in taken and port_is_free(host, preferred):
        return preferred
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, 0))
            except OSError as error:
                reason = error.strerror or str(error)
                raise CannotStart(
                    f"the bus can't listen on {host} ({reason}); give an --interface this machine has"
                ) from None
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
