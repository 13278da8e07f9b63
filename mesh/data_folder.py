"""Every name in a node's data directory: what it is, and who writes it. No other module spells one.

One table keeps two parts from choosing the same name, which would leave a directory that no node can start on.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import CannotStart

LOCK = "lock"
IDENTITY = "node.json"
LAST_START = "last-start"
BUS = "bus"
STARTED_NODES = "started"
WORK = "work"
SPOOL = "spool"
BLOB_CACHE = "blob-cache"
MEASURING = "measuring"
SPEEDS = "speeds.json"
PACKAGES = "packages.json"
BENCHMARKS = "bench"


@dataclass(frozen=True)
class Entry:
    """One file or folder of the data directory."""

    name: str
    is_folder: bool
    owner: str
    """The module that writes it; everything inside a folder is that module's."""
    holds: str


ENTRIES = (
    Entry(LOCK, False, "mesh.discovery.identity", "the lock of the node that runs, and its process id"),
    Entry(IDENTITY, False, "mesh.discovery.identity", "the id of the node, its mesh, and where the bus was"),
    Entry(LAST_START, False, "mesh.discovery.identity", "when the node last started: proves that the disk is writable"),
    Entry(BUS, True, "mesh.bus.server", "the bus server that the node hosts: its store, configuration and logs"),
    Entry(STARTED_NODES, True, "scaling.providers.local", "a folder for each node that the scaler started here"),
    Entry(WORK, True, "node.executor", "the folders of the worker processes"),
    Entry(SPOOL, True, "node.work.admission", "blobs and checkpoints of tasks that run"),
    Entry(BLOB_CACHE, True, "mesh.bus.blob_cache", "copies of recently used blobs"),
    Entry(MEASURING, True, "node.identity.calibrator", "the workers that measure speeds"),
    Entry(SPEEDS, False, "node.identity.calibration", "the measured speed of each kind"),
    Entry(PACKAGES, False, "node.probes.packages", "results of imports, where the user has no cache directory"),
    Entry(BENCHMARKS, True, "node.benchmarking", "outcomes of the benchmark suite"),
)


def prepare(folder: Path) -> None:
    """Make what an earlier version, or a crash, left in `folder` fit the table. The caller holds the lock.

    Raises: CannotStart when a name of the table is something else, OSError.
    """
    _remove_old(folder)
    for entry in ENTRIES:
        path = folder / entry.name
        if path.exists() and path.is_dir() != entry.is_folder:
            kinds = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
            raise CannotStart(
                f"{path} is {kinds[0]}, and a node keeps {kinds[1]} of that name ({entry.holds}); move it away, or "
                "give another --data"
            )


def _remove_old(folder: Path) -> None:
    started = folder / STARTED_NODES
    if started.is_file():  # up to 0.1.0 the time of the last start
        started.unlink()
    for draft in folder.glob(".*.new"):  # of `write_atomically`, in a process that was killed
        with contextlib.suppress(OSError):
            draft.unlink()
