"""A provider of pretend nodes, for tests: everything it does wrong is ordered beforehand, nothing is left to chance.

`told` holds every call it got, in order, and `running` what there is. Times are those of the clock it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from scaling.domain.model import OWN, Offer
from scaling.providers.base import ENDING, RUNNING, STARTING, Instance, LaunchRefused, Order

#: An answer that never comes.
HANG = "hang"


@dataclass
class Script:
    """What goes wrong, and when. Each list is used up from its front, one entry a call; empty: it goes well."""

    launches: list[Exception | str | None] = field(default_factory=list)
    """An error to raise without starting anything, HANG (nothing starts, no answer), or None."""
    afterwards: list[Exception | str | None] = field(default_factory=list)
    """The same, but the node has been started: the answer is what is lost."""
    lists: list[Exception | str | None] = field(default_factory=list)
    terminates: list[Exception | str | None] = field(default_factory=list)
    hides: set[str] = field(default_factory=set)
    """Tokens that its list does not tell of although they run."""
    claims: list[Instance] = field(default_factory=list)
    """What its list tells of although nobody runs it."""
    immortal: set[str] = field(default_factory=set)
    """Ids that `terminate` says it ends, and does not."""


class FakeProvider:
    """`scaling.providers.base.Provider`, in memory. `on_launch(instance)` is called when something was started."""

    def __init__(
        self,
        offers: Sequence[Offer] = (Offer("small", "fake", "small", market=OWN, start_s=1.0),),
        *,
        name: str = "fake",
        paid: bool = False,
        start_s: float = 0.0,
        clock: Callable[[], float] = lambda: 0.0,
        on_launch: Callable[[Instance], None] = lambda instance: None,
        on_terminate: Callable[[Instance], None] = lambda instance: None,
    ) -> None:
        """`start_s`: how long an instance is `starting` for its own provider."""
        self.name, self.paid, self.place = name, paid, ""
        self.script = Script()
        self.told: list[tuple[str, str]] = []
        """(call, token or id), also of calls that failed"""
        self.running: dict[str, Instance] = {}
        self.orders: list[Order] = []
        self._offers, self._start_s, self._clock = tuple(offers), start_s, clock
        self._on_launch, self._on_terminate = on_launch, on_terminate
        self._number = 0

    async def offers(self) -> tuple[Offer, ...]:
        """As given."""
        self.told.append(("offers", ""))
        return self._offers

    async def launch(self, order: Order) -> Instance:
        """See Provider."""
        self.told.append(("launch", order.token))
        await _play(self.script.launches)
        for one in self.running.values():
            if one.token == order.token:
                return one
        offer = next((one for one in self._offers if one.id == order.offer), None)
        if offer is None:
            raise LaunchRefused(f"there is no offer {order.offer}")
        self._number += 1
        made = Instance(
            f"i{self._number}", order.token, order.mesh_id, offer.id, STARTING, self._clock(), order.expires_at,
            offer.price_usd_h,
        )  # fmt: skip
        self.running[made.id] = made
        self.orders.append(order)
        self._on_launch(made)
        await _play(self.script.afterwards)
        return made

    async def list(self, mesh_id: str) -> tuple[Instance, ...]:
        """See Provider."""
        self.told.append(("list", mesh_id))
        await _play(self.script.lists)
        now, script = self._clock(), self.script
        there = [one for one in self.running.values() if one.token not in script.hides]
        there = [
            replace(one, state=RUNNING) if one.state == STARTING and now - one.launched_at >= self._start_s else one
            for one in there
        ]
        return tuple(one for one in (*there, *script.claims) if one.mesh_id == mesh_id)

    async def terminate(self, instance: str) -> None:
        """See Provider."""
        self.told.append(("terminate", instance))
        await _play(self.script.terminates)
        there = self.running.get(instance)
        if there is None:
            return
        if instance in self.script.immortal:
            self.running[instance] = replace(there, state=ENDING)
            return
        del self.running[instance]
        self._on_terminate(there)

    def calls(self, what: str) -> list[str]:
        """Of that call, what it was about, in order."""
        return [about for call, about in self.told if call == what]


async def _play(script: list[Exception | str | None]) -> None:
    step = script.pop(0) if script else None
    if step == HANG:
        await asyncio.Event().wait()
    if isinstance(step, Exception):
        raise step
