"""Declaring the streams of a mesh while its bus servers may be between two states."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.bus.client import Bus
from mesh.bus.streams import declare_streams
from mesh.config import MeshConfig
from mesh.errors import BusUnavailable

#: What the node tells the user while it waits.
Report = Callable[[str], None]
_AGAIN_S = 0.25


async def declare(bus: Bus, config: MeshConfig, free_bytes: int, report: Report | None) -> None:
    """Declare the streams and consumers. With `report` it waits for as long as other bus servers are away.

    After a power cut a consumer is offline until the server that holds its only copy is back. Raises: QueztlError.
    """
    reported = ""
    while True:
        try:
            return await declare_streams(bus, config, free_bytes)
        except BusUnavailable as error:
            if report is None:
                raise
            if error.message != reported:
                report(f"waiting for the bus: {error.message}")
            reported = error.message
        await asyncio.sleep(_AGAIN_S)
