"""The deliveries that a node holds: which of them it may still acknowledge, renew and announce.

The server does not fence ACK, NAK and in-progress messages: a late one affects whichever node holds the message now.
So a node trusts a delivery only while the connection over which it came stands, and while this process has not stood
still for too long. About a delivery that it does not trust it sends nothing but a conditional result record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mesh.bus.client import Bus
from mesh.messages import Held, HeldSet, Task, encode
from mesh.subjects import held as held_subject
from node.work.outcome import Attempt


class Delivery(msgspec.Struct):
    """One message that this node received and has not settled. Times are monotonic, except `started_unix`."""

    task: Task
    reply: str
    """Its ack subject."""
    stream_seq: int
    delivered: int
    """How often the server has delivered the message, this time included."""
    epoch: int
    """Which connection of the bus client it came over."""
    taken_at: float
    trusted: bool = True
    suspect: bool = False
    """It may be a second copy: the task's records are read before it runs."""
    attempt: Attempt = Attempt()
    started_at: float = 0.0
    """0 while it waits for a worker."""
    started_unix: float = 0.0
    state_at: float = 0.0
    """When its state record was last written; 0: never."""
    renewed_at: float = 0.0
    withdrawn: bool = False
    """Returned, or dropped before it started: it does not run, and the node sends nothing more about it."""
    ended: bool = False
    """The task ended before a worker got it: it does not run."""
    cores: int = 1
    """Slots that it needs on this node."""
    folder: Path | None = None
    """Holds its blobs. One folder per delivery: a task may be delivered again while it is still being admitted."""


class Deliveries:
    """All held deliveries, by stream sequence."""

    def __init__(self, bus: Bus, node: str, incarnation: str) -> None:
        self._bus, self._node, self._incarnation = bus, node, incarnation
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, Delivery] = {}
        self._announced: frozenset[tuple[int, int]] = frozenset()
        self.none_held = asyncio.Event()
        """Set while no delivery is held."""
        self.none_held.set()
        self.changed_at = float("-inf")
        """When a delivery was last taken, started or dropped, monotonic."""
        self.changed = asyncio.Event()
        """Set at every such change; whoever waits for it clears it."""
        bus.on_lost.append(self.distrust)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(list(self._held.values()))

    def older_than(self, taken_before: float) -> Iterator[Delivery]:
        """Those taken before that time, the oldest first. It stops at the first young one: checking thousands of young
        deliveries 40 times a second would cost a tenth of the daemon's CPU time."""
        for delivery in list(self._held.values()):
            if delivery.taken_at > taken_before:
                return
            yield delivery

    def get(self, stream_seq: int) -> Delivery | None:
        """The held delivery of a message."""
        return self._held.get(stream_seq)

    def of_task(self, task: str) -> list[Delivery]:
        """The held deliveries of a task: two, when it was sent again and the bus stored it again."""
        return [delivery for delivery in self._held.values() if delivery.task.id == task]

    def take(self, delivery: Delivery) -> bool:
        """Hold a delivery. False when its message is held already: then the held delivery only gets the new ack
        subject, which makes it trusted again (its task ran on through a lost connection or a stall)."""
        old = self._held.get(delivery.stream_seq)
        if old is None or old.withdrawn:
            self._held[delivery.stream_seq] = delivery
            self.none_held.clear()
            self.mark_changed(delivery.taken_at)
            return True
        old.reply, old.delivered, old.epoch, old.trusted = delivery.reply, delivery.delivered, delivery.epoch, True
        old.renewed_at = delivery.taken_at
        self.mark_changed(delivery.taken_at)
        return False

    def drop(self, delivery: Delivery) -> None:
        """Forget a delivery, and send nothing about it any more; its message may have been delivered again by now."""
        delivery.trusted = False
        if self._held.get(delivery.stream_seq) is delivery:
            del self._held[delivery.stream_seq]
            self.mark_changed(self._loop.time())
        if not self._held:
            self.none_held.set()

    def mark_changed(self, now: float) -> None:
        """A delivery changed: the set may have to be announced."""
        self.changed_at = now
        self.changed.set()

    def distrust(self) -> None:
        """The connection broke, or this process stood still: other nodes may hold these messages by now."""
        for delivery in self._held.values():
            delivery.trusted = False
            delivery.suspect = True

    # --- messages to the server ---------------------------------------------------------------------
    def ack(self, delivery: Delivery) -> None:
        """Acknowledge: the task's result record is stored."""
        trusted = self._is_trusted(delivery)
        self.drop(delivery)
        if trusted:
            self._bus.ack(delivery.reply)

    def nak(self, delivery: Delivery, delay_s: float) -> None:
        """Return the task to its lane; the server delivers it again after `delay_s`, to this node or another one."""
        trusted = self._is_trusted(delivery)
        delivery.withdrawn = True
        self.drop(delivery)
        if trusted:
            self._bus.nak(delivery.reply, delay_s)

    def renew(self, now: float, every_s: float) -> None:
        """Report to the server, every `every_s`, that the held tasks are still in progress."""
        for delivery in self.older_than(now - every_s):
            if now - max(delivery.renewed_at, delivery.taken_at) >= every_s and self._is_trusted(delivery):
                delivery.renewed_at = now
                self._bus.in_progress(delivery.reply)

    def _is_trusted(self, delivery: Delivery) -> bool:
        return delivery.trusted and delivery.epoch == self._bus.epoch and self._bus.connected

    # --- messages to the mesh -----------------------------------------------------------------------
    def announce(self, now: float, after_s: float, force: bool = False) -> None:
        """Publish the deliveries held for longer than `after_s`, if that set changed (or if `force`, and not empty)."""
        old = [delivery for delivery in self.older_than(now - after_s) if delivery.trusted]
        key = frozenset((delivery.stream_seq, delivery.delivered) for delivery in old)
        if key == self._announced and not (force and key):
            return
        self._announced = key
        announced = tuple(
            Held(delivery.stream_seq, delivery.delivered, delivery.reply, delivery.task.id) for delivery in old
        )
        message = HeldSet(self._node, self._incarnation, announced)
        self._bus.send(held_subject(self._node), encode(message))
