"""The revisions that a bucket has given: a bound for numbers that messages claim to have from it.

A fence is the revision of the lease with which a term began. Receivers prefer the higher one, so a forged one would be
preferred for ever. No true one is above the last revision of the bucket, which only the bus gives, one with each write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from mesh.bus.stream_clock import StreamInfos
from mesh.errors import QueztlError

log = logging.getLogger(__name__)

#: The bucket is asked this often at most, seconds: anybody can claim a number.
ASK_AGAIN_S = 0.2


class Revisions:
    """The revisions of one bucket, as far as this process knows them."""

    def __init__(self, bus: StreamInfos, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._stream, self._clock = bus, f"KV_{bucket}", clock
        self._newest, self._asked_at = 0, float("-inf")
        self._asking = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    def observe(self, revision: int) -> None:
        """The bus gave this revision, in an answer or with a record."""
        self._newest = max(self._newest, revision)

    def has_given(self, revision: int) -> bool:
        """Whether the bucket is known to have given `revision`, or a later one.

        For messages that come again and again: when it is not known, the bus is asked, and the next call knows.
        """
        if revision > self._newest and (self._background is None or self._background.done()):
            self._background = asyncio.get_running_loop().create_task(self._try_to_learn(), name="learn revisions")
        return revision <= self._newest

    async def check(self, revision: int) -> bool:
        """`has_given`, after asking the bus where that is needed. Raises: BusUnavailable, ApiError."""
        if revision > self._newest:
            await self._learn()
        return revision <= self._newest

    async def _try_to_learn(self) -> None:
        try:
            await self._learn()
        except QueztlError as error:
            log.debug("could not read the last revision of %s: %s", self._stream, error.message)

    async def _learn(self) -> None:
        async with self._asking:
            await asyncio.sleep(max(0.0, self._asked_at + ASK_AGAIN_S - self._clock()))
            self._asked_at = self._clock()
            self.observe((await self._bus.stream_info(self._stream)).last_sequence)
