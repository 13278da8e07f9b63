"""The clock of the bus: the time by the server that leads a stream, which stamps the stream's messages.

Ages, expiries, schedules and what successive leaders remember are judged by this clock, never by that of the machine
that wrote a message: machines differ by hours. The server's time is read with a request and continued with the local
monotonic clock, so the machine's own time, and every change of it, plays no part either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mesh.bus.replies import StreamInfo

#: A reading is used for this long, seconds: another server may lead the stream since.
FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """`server_time` (Unix seconds) was the server's clock at some moment between two of the local monotonic clock."""

    server_time: float
    asked_at: float
    answered_at: float

    def earliest(self, now: float) -> float:
        """The earliest that the server's clock can show at `now` (monotonic), Unix seconds."""
        return self.server_time + (now - self.answered_at)

    def latest(self, now: float) -> float:
        """The latest that the server's clock can show at `now` (monotonic), Unix seconds."""
        return self.server_time + (now - self.asked_at)


def has_expired(expires_s: float, stored_at: float, server_now: float) -> bool:
    """Whether a message that expires `expires_s` after it was stored has expired; 0: it never does. Pure.

    Both times are by the server's clock. A negative age means that another server, whose clock is behind, leads now.
    """
    return expires_s > 0 and server_now - stored_at > expires_s


class StreamInfos(Protocol):
    """What describes a stream: a connection to the bus."""

    epoch: int

    async def stream_info(self, stream: str, subject: str = "", timeout_s: float = 5.0) -> StreamInfo:
        """The stream, as its leader describes it."""


class StreamClock:
    """The clock of the server that leads one stream."""

    def __init__(self, bus: StreamInfos, stream: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._stream, self._clock = bus, stream, clock
        self._reading: Reading | None = None
        self._epoch = 0
        self._asking = asyncio.Lock()

    async def read(self, timeout_s: float = 5.0) -> Reading:
        """A reading that is at most FRESH_S old. Raises: BusUnavailable after `timeout_s`, ApiError."""
        async with self._asking:
            reading, asked_at = self._reading, self._clock()
            if reading is None or self._epoch != self._bus.epoch or asked_at - reading.answered_at > FRESH_S:
                epoch = self._bus.epoch
                server_time = (await self._bus.stream_info(self._stream, timeout_s=timeout_s)).now
                reading = self._reading = Reading(server_time, asked_at, self._clock())
                self._epoch = epoch
        return reading

    async def earliest(self) -> float:
        """The earliest that the server's clock can show now, Unix seconds. Raises: as `read`."""
        return (await self.read()).earliest(self._clock())

    async def latest(self, timeout_s: float = 5.0) -> float:
        """The latest that the server's clock can show now, Unix seconds. Raises: as `read`."""
        return (await self.read(timeout_s)).latest(self._clock())

    async def continued(self) -> Callable[[], float]:
        """A clock that starts at the server's time and goes on by monotonic time alone. Raises: as `read`."""
        reading, clock = await self.read(), self._clock
        return lambda: reading.earliest(clock())
