"""What this machine can do: the results of all probes as one record."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable
from pathlib import Path

from mesh.kinds.base import KindSpec
from mesh.kinds.table import KINDS
from mesh.messages import Capabilities
from node.probes.accelerator import probe_accelerators
from node.probes.machine import probe_machine
from node.probes.packages import probe_packages, shared_folder


async def probe(folder: Path, specs: Iterable[KindSpec] = tuple(KINDS.values())) -> Capabilities:
    """Probe processor, memory, disk, accelerators and libraries at the same time, in threads.

    `folder`: the node's data directory, where free disk is measured. The results of importing libraries are cached for
    all nodes of this user: the first start takes as long as those imports, later ones some milliseconds.
    """
    machine, accelerators, (kinds, libraries) = await asyncio.gather(
        asyncio.to_thread(probe_machine, folder),
        asyncio.to_thread(probe_accelerators),
        asyncio.to_thread(probe_packages, specs, shared_folder(folder)),
    )
    return Capabilities(
        os=machine.os,
        arch=machine.arch,
        cpu_model=machine.cpu_model,
        cpu_features=machine.cpu_features,
        cores=machine.cores,
        cores_physical=machine.cores_physical,
        memory_bytes=machine.memory_bytes,
        disk_free_bytes=machine.disk_free_bytes,
        accelerators=accelerators,
        libraries={"python": platform.python_version(), **libraries},
        kinds=kinds,
    )
