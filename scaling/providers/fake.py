"""A provider of simulated nodes, for tests: every failure is scripted, nothing is left to chance.

`call_log` holds every call in order, `running` the instances there are. Times are those of the given clock.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from scaling.domain.model import OWN, Offer
from scaling.providers.base import ENDING, RUNNING, STARTING, Instance, LaunchRefused, Order

#: An answer that never comes.
HANG = "hang"

#: What a call does: raise this error, HANG, or succeed (None).
Outcome = Exception | str | None


@dataclass
class Script:
    """The failures, per call. Each list is consumed from its front, one entry per call; an empty list means success."""

    launches: list[Outcome] = field(default_factory=list[Outcome])
    """Failures before the launch: nothing is started."""
    afterwards: list[Outcome] = field(default_factory=list[Outcome])
    """Failures after the launch: the node was started and the answer is lost."""
    lists: list[Outcome] = field(default_factory=list[Outcome])
    terminates: list[Outcome] = field(default_factory=list[Outcome])
    hides: set[str] = field(default_factory=set[str])
    """Tokens that the list omits although their instances run."""
    claims: list[Instance] = field(default_factory=list[Instance])
    """Instances that the list shows although nobody runs them."""
    immortal: set[str] = field(default_factory=set[str])
    """Ids that `terminate` claims to end, and does not."""


class FakeProvider:
    """`scaling.providers.base.Provider`, in memory. `on_launch(instance)` is called when one was started."""

    def __init__(
        self,
        offers: Sequence[Offer] = (Offer("small", "fake", "small", market=OWN, start_s=1.0),),
        *,
        name: str = "fake",
        paid: bool = False,
        clock: Callable[[], float] = lambda: 0.0,
        on_launch: Callable[[Instance], None] = lambda instance: None,
        on_terminate: Callable[[Instance], None] = lambda instance: None,
    ) -> None:
        self.name, self.paid, self.place = name, paid, ""
        self.script = Script()
        self.call_log: list[tuple[str, str]] = []
        """(call, token or id), failed calls included"""
        self.running: dict[str, Instance] = {}
        self.orders: list[Order] = []
        self._offers, self._clock = tuple(offers), clock
        self._on_launch, self._on_terminate = on_launch, on_terminate
        self._number = 0

    async def offers(self) -> tuple[Offer, ...]:
        """As given to the constructor."""
        self.call_log.append(("offers", ""))
        return self._offers

    async def launch(self, order: Order) -> Instance:
        """See Provider."""
        self.call_log.append(("launch", order.token))
        await _play(self.script.launches)
        for instance in self.running.values():
            if instance.token == order.token:
                return instance
        offer = next((offer for offer in self._offers if offer.id == order.offer), None)
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
        self.call_log.append(("list", mesh_id))
        await _play(self.script.lists)
        shown = [
            replace(instance, state=RUNNING) if instance.state == STARTING else instance
            for instance in self.running.values()
            if instance.token not in self.script.hides
        ]
        return tuple(instance for instance in (*shown, *self.script.claims) if instance.mesh_id == mesh_id)

    async def terminate(self, instance: str) -> None:
        """See Provider."""
        self.call_log.append(("terminate", instance))
        await _play(self.script.terminates)
        ended = self.running.get(instance)
        if ended is None:
            return
        if instance in self.script.immortal:
            self.running[instance] = replace(ended, state=ENDING)
            return
        del self.running[instance]
        self._on_terminate(ended)

    def calls(self, name: str) -> builtins.list[str]:
        """The token or id of every call with that name, in order."""
        return [argument for call, argument in self.call_log if call == name]


async def _play(outcomes: list[Outcome]) -> None:
    outcome = outcomes.pop(0) if outcomes else None
    if outcome == HANG:
        await asyncio.Event().wait()
    if isinstance(outcome, Exception):
        raise outcome
