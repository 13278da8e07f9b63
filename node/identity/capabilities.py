"""What this machine can do: the probes' findings as one record."""

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
    """Look at processor, memory, disk, accelerators and libraries, side by side; nothing blocks the loop.

    `folder` is the node's data directory: free disk is measured there. What importing libraries proved is kept for all
    nodes of this user (a start with nothing known takes as long as those imports, any other one some milliseconds).
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
