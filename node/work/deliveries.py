"""The deliveries a node holds: what it may still acknowledge, renew and announce.

NAK, +WPI and +ACK are not fenced by the server: a late one hits whoever holds the message now. So a delivery is
trusted only while the connection it came over stands and this process never stood still for too long; about any
other one the node says nothing but a conditional `.end`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mesh.bus.client import Bus
from mesh.messages import Held, HeldSet, Task, encode
from mesh.subjects import held as held_subject
from node.work.outcome import Attempt


@dataclass(slots=True)
class Delivery:
    """One message this node was given and has not settled."""

    task: Task
    reply: str
    stream_seq: int
    delivered: int
    epoch: int
    taken_at: float
    """Monotonic."""
    trusted: bool = True
    suspect: bool = False
    """Maybe a second copy: its records are read before it runs."""
    attempt: Attempt = field(default_factory=Attempt)
    started_at: float = 0.0
    """Monotonic; 0 while it waits for a worker."""
    started_unix: float = 0.0
    state_at: float = 0.0
    """When its `.state` was last written, monotonic; 0: never."""
    renewed_at: float = 0.0
    withdrawn: bool = False
    """Given back, or dropped by this node before it started: it is not run, and nothing more is said about it."""
    ended: bool = False
    """Somebody ended the task before it was handed to a worker: it is not run."""
    folder: Path | None = None
    """Where its blobs are, if it needed any. One for each delivery: a task may come back while it is still let in."""


class Deliveries:
    """All of them, by stream sequence."""

    def __init__(self, bus: Bus, node: str, incarnation: str) -> None:
        self._bus, self._node, self._incarnation = bus, node, incarnation
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, Delivery] = {}
        self._announced: frozenset[tuple[int, int]] = frozenset()
        self.none_held = asyncio.Event()
        """Set while nothing is held."""
        self.none_held.set()
        self.changed_at = float("-inf")
        """When something was last taken, begun or dropped, monotonic."""
        self.changed = asyncio.Event()
        """Set by that; cleared by whoever waits for it."""
        bus.on_lost.append(self.distrust)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(list(self._held.values()))

    def older_than(self, taken_before: float) -> Iterator[Delivery]:
        """Those taken before that time, the oldest first: looking at thousands of young ones 40 times a second
        would cost a tenth of the daemon."""
        for one in list(self._held.values()):
            if one.taken_at > taken_before:
                return
            yield one

    def get(self, stream_seq: int) -> Delivery | None:
        """The held delivery of that message."""
        return self._held.get(stream_seq)

    def of_task(self, task: str) -> Delivery | None:
        """The held delivery of that task."""
        return next((one for one in self._held.values() if one.task.id == task), None)

    def take(self, delivery: Delivery) -> bool:
        """Hold a delivery; False when the message was held already: then the old one only gets the new ack
        subject, which makes it ours again (a blip, or a stall, outlived by the work itself)."""
        old = self._held.get(delivery.stream_seq)
        if old is None or old.withdrawn:
            self._held[delivery.stream_seq] = delivery
            self.none_held.clear()
            self.touch(delivery.taken_at)
            return True
        old.reply, old.delivered, old.epoch, old.trusted = delivery.reply, delivery.delivered, delivery.epoch, True
        old.renewed_at = delivery.taken_at
        self.touch(delivery.taken_at)
        return False

    def drop(self, delivery: Delivery) -> None:
        """No longer hold it, and never say anything about it again; the message may be held anew by now."""
        delivery.trusted = False
        if self._held.get(delivery.stream_seq) is delivery:
            del self._held[delivery.stream_seq]
            self.touch(self._loop.time())
        if not self._held:
            self.none_held.set()

    def touch(self, now: float) -> None:
        """Something changed, of which others may have to be told."""
        self.changed_at = now
        self.changed.set()

    def distrust(self) -> None:
        """The connection broke, or this process stood still: others may hold these messages by now."""
        for delivery in self._held.values():
            delivery.trusted = False
            delivery.suspect = True

    # --- what is said to the server -----------------------------------------------------------------
    def ack(self, delivery: Delivery) -> None:
        """The task's end is stored: its message may go."""
        ours = self._ours(delivery)
        self.drop(delivery)
        if ours:
            self._bus.ack(delivery.reply)

    def give_back(self, delivery: Delivery, delay_s: float) -> None:
        """Somebody (else) shall have it, after `delay_s`."""
        ours = self._ours(delivery)
        delivery.withdrawn = True
        self.drop(delivery)
        if ours:
            self._bus.nak(delivery.reply, delay_s)

    def renew(self, now: float, every_s: float) -> None:
        """Tell the server of work that still goes on, at a third of `ack_wait`."""
        for delivery in self.older_than(now - every_s):
            if now - max(delivery.renewed_at, delivery.taken_at) >= every_s and self._ours(delivery):
                delivery.renewed_at = now
                self._bus.in_progress(delivery.reply)

    def _ours(self, delivery: Delivery) -> bool:
        return delivery.trusted and delivery.epoch == self._bus.epoch and self._bus.connected

    # --- what is said to the mesh -------------------------------------------------------------------
    def announce(self, now: float, after_s: float, force: bool = False) -> None:
        """Publish the set held for longer than `after_s`, when it changed (or when `force`d and not empty)."""
        old = [one for one in self.older_than(now - after_s) if one.trusted]
        key = frozenset((one.stream_seq, one.delivered) for one in old)
        if key == self._announced and not (force and key):
            return
        self._announced = key
        announced = tuple(Held(one.stream_seq, one.delivered, one.reply, one.task.id) for one in old)
        message = HeldSet(self._node, self._incarnation, announced)
        self._bus.send(held_subject(self._node), encode(message))
