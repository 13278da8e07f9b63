"""The bound for numbers that claim to be revisions of a bucket."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mesh.bus.revisions import ASK_AGAIN_S, Revisions
from mesh.errors import BusUnavailable


class Infos:
    """Describes a stream, and counts how often it was asked."""

    epoch = 1

    def __init__(self, last: int) -> None:
        self.last, self.asked, self.away = last, 0, False

    async def stream_info(self, stream: str, subject: str = "") -> SimpleNamespace:
        assert (stream, subject) == ("KV_lease", "")
        self.asked += 1
        if self.away:
            raise BusUnavailable("away")
        return SimpleNamespace(last_sequence=self.last)


async def test_a_number_above_the_last_revision_was_never_given() -> None:
    infos = Infos(last=7)
    revisions = Revisions(infos, "lease")
    assert await revisions.check(7) and infos.asked == 1
    assert await revisions.check(3) and revisions.has_given(7) and infos.asked == 1
    assert not await revisions.check(8)
    revisions.observe(9)
    assert await revisions.check(9) and infos.asked == 2


async def test_the_bus_is_asked_once_for_many_numbers_and_never_believed_while_it_is_away() -> None:
    infos = Infos(last=7)
    revisions = Revisions(infos, "lease")
    assert not any(revisions.has_given(number) for number in (5, 1 << 40) for _ in range(100))
    await asyncio.sleep(0.01)
    assert infos.asked == 1 and revisions.has_given(5)
    infos.away, infos.last = True, 1 << 41
    assert not revisions.has_given(1 << 40)
    await asyncio.sleep(2 * ASK_AGAIN_S)
    assert infos.asked == 2 and not revisions.has_given(1 << 40)
    with pytest.raises(BusUnavailable):
        await revisions.check(1 << 40)
