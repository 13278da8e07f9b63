"""What the bus servers report about their stores: the alarms, and whether the bus accepts anything now.

Every node and client collects the reports of all hosts (`StoreReport`), which come over core NATS while JetStream does
not work. So a submission is refused at once, with the reason, and not when its confirmation does not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.coordination import BusReport, StoreReport
from mesh.decoding import Decoder, Unreadable
from mesh.errors import StoreFullNow, StoreUnavailable

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription

#: A report counts for this long, seconds: while something is wrong another one comes every second or two.
KEPT_S = 10.0
#: What the leader read about the copies counts for this long, seconds.
COPIES_KEPT_S = 15.0


def _fault(report: StoreReport) -> str:
    if not subjects.is_token(report.node):
        return "its node can't be the id of one"
    if report.servers < 1 or any(number < 1 for number in report.lost.values()):
        return "its numbers are no amounts"
    return "" if len(report.says) + len(report.name) < 1000 and len(report.lost) < 100 else "it is too long"


decode_store_report: Decoder[StoreReport] = Decoder(StoreReport, "report about a store", _fault)
decode_bus_report: Decoder[BusReport] = Decoder(BusReport, "report about the copies of the streams")


def refusal(reports: Iterable[StoreReport]) -> StoreUnavailable | None:
    """Why nothing can be stored now; None while a majority of the bus servers stores. Pure."""
    failing = [report for report in reports if not report.stores]
    if not failing or len(failing) * 2 < max(report.servers for report in failing):
        return None
    sentence = "; ".join(sorted(map(describe, failing)))
    kind = StoreFullNow if any(report.is_full for report in failing) else StoreUnavailable
    error = kind(f"the bus can store nothing now: {sentence}")
    error.retry_after_s = 10.0
    return error


def describe(report: StoreReport) -> str:
    """The state of one bus server, with the name of its machine. Pure."""
    return f"the bus server on {report.name or report.node}: {report.says}"


def alarms(reports: Iterable[StoreReport]) -> dict[str, str]:
    """Stable name -> alarm. Pure."""
    found: dict[str, str] = {}
    for report in sorted(reports, key=lambda report: report.node):
        if report.says:
            found[f"store-{report.node}"] = f"T{describe(report)[1:]}."
        for stream, number in sorted(report.lost.items()):
            machine, copies = report.name or report.node, "other copies have them"
            if report.servers == 1:
                copies = "they had no other copy"
            found[f"lost-{report.node}-{stream}"] = (
                f"The store on {machine} has lost {number} message{'s' * (number != 1)} of the stream {stream} (its "
                f"files are damaged): {copies}."
            )
    return found


class StoreReports:
    """The reports that one connection hears. `start()`, then `close()`."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._clock = bus, clock
        self._heard: dict[str, tuple[float, StoreReport]] = {}
        self._copies: tuple[float, BusReport] | None = None
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Subscribe. Raises: BusUnavailable."""
        self._subscriptions = [
            await self._bus.subscribe(subjects.ALL_STORE_REPORTS, self._on_report, wait=False),
            await self._bus.subscribe(subjects.BUS_REPORT, self._on_bus_report, wait=False),
        ]

    async def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    def _on_report(self, message: Message) -> None:
        report = decode_store_report(message.data)
        if isinstance(report, Unreadable) or message.subject != subjects.store_report(report.node):
            return
        self._heard[report.node] = (self._clock(), report)
        if (error := self.refusal()) is not None:
            # What is under way would wait for a confirmation that can't come.
            self._bus.refuse_pending(error)

    def _on_bus_report(self, message: Message) -> None:
        report = decode_bus_report(message.data)
        if isinstance(report, Unreadable) or not self._bus.revisions(subjects.KV_LEASE).has_given(report.fence):
            return
        if (last := self.copies()) is None or report.fence >= last.fence:
            self._copies = (self._clock(), report)

    @property
    def reports(self) -> tuple[StoreReport, ...]:
        """The reports that count now."""
        now = self._clock()
        self._heard = {node: heard for node, heard in self._heard.items() if now - heard[0] < KEPT_S}
        return tuple(report for _, report in self._heard.values())

    def refusal(self) -> StoreUnavailable | None:
        """Why nothing can be stored now, if so."""
        return refusal(self.reports) if self._heard else None

    def copies(self) -> BusReport | None:
        """What the leader read from the servers lately; None when nothing was heard."""
        if self._copies is None or self._clock() - self._copies[0] > COPIES_KEPT_S:
            return None
        return self._copies[1]
