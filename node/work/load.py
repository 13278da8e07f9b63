"""What a node holds: the tasks that wait for a worker and those that run, as the pull plan needs to know them."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from mesh.kinds.table import KINDS
from mesh.lanes import cores_for
from mesh.messages import Task
from node.executor.executor import Executor
from node.work import pull_plan
from node.work.deliveries import Deliveries, Delivery

#: A task that has run for longer than this is long, whatever the mean run time of its kind, seconds.
LONG_S = 0.25


class NodeLoad:
    """Counts the tasks of one node by kind, from their delivery to their end."""

    def __init__(self, slots: int, deliveries: Deliveries, others_start: Callable[[str, dict[str, Any]], bool]) -> None:
        """`others_start(kind, requires)`: whether another node could start such a task now."""
        self._slots, self._deliveries, self._others_start = slots, deliveries, others_start
        self._loop = asyncio.get_running_loop()
        self.waiting: defaultdict[str, int] = defaultdict(int)
        """kind -> how many of its tasks no worker has started."""
        self._running: defaultdict[str, int] = defaultdict(int)
        self._usual_cores: dict[str, int] = {}
        """kind -> the slots of a task without requirements: this is asked for each task."""
        self._wide: dict[int, Delivery] = {}
        """Stream sequence -> unstarted task that needs several slots."""

    @property
    def unstarted(self) -> int:
        """How many tasks this node holds that no worker has started."""
        return sum(self.waiting.values())

    def cores(self, task: Task) -> int:
        """The slots that the task needs on this node."""
        if not task.requires and (cores := self._usual_cores.get(task.kind)):
            return cores
        spec = KINDS.get(task.kind)
        if spec is None:
            return 1
        cores = cores_for(task.requires, spec.resources.cores, self._slots)
        if not task.requires:
            self._usual_cores[task.kind] = cores
        return cores

    # --- the life of a task ---------------------------------------------------------------------------
    def add(self, delivery: Delivery) -> None:
        """The node took it, or its worker died: it waits for one."""
        self.waiting[delivery.task.kind] += 1
        if delivery.cores > 1:
            self._wide[delivery.stream_seq] = delivery

    def start(self, delivery: Delivery) -> None:
        """A worker got it."""
        self.remove(delivery)
        self._running[delivery.task.kind] += 1

    def stop(self, delivery: Delivery) -> None:
        """It runs no more."""
        self._running[delivery.task.kind] -= 1

    def remove(self, delivery: Delivery) -> None:
        """It waits no more."""
        self.waiting[delivery.task.kind] -= 1
        if delivery.cores > 1:
            self._wide.pop(delivery.stream_seq, None)

    # --- what follows from it -------------------------------------------------------------------------
    def view(self, executor: Executor) -> pull_plan.Load:
        """What the pull plan needs to know."""
        means_s = self.means_s(executor)
        unstarted = tuple((means_s.get(kind, 0.0), count) for kind, count in self.waiting.items() if count)
        return pull_plan.Load(self._slots, self._free_slots(executor), unstarted, means_s, self._busy_s(means_s))

    def means_s(self, executor: Executor) -> dict[str, float]:
        """kind -> seconds: its measured mean, or how long a task of it has been running if that is longer."""
        means_s = {kind: rate.mean_s for kind, rate in executor.rates.items() if rate.samples}
        now = self._loop.time()
        for delivery in self._deliveries.older_than(now - LONG_S):
            if delivery.started_at and (ran_s := now - delivery.started_at) > LONG_S:
                kind = delivery.task.kind
                means_s[kind] = max(means_s.get(kind, 0.0), ran_s)
        return means_s

    def is_misplaced(self, delivery: Delivery, executor: Executor) -> bool:
        """Whether a task that was just delivered would have to wait for slots that another node has free."""
        return self._belongs_elsewhere(delivery, self._free_slots(executor) - self.unstarted, executor)

    def misplaced(self, executor: Executor) -> list[Delivery]:
        """The unstarted tasks that wait for slots which another node has free."""
        wide = list(self._wide.values())
        return [delivery for delivery in wide if self._belongs_elsewhere(delivery, executor.free_cores, executor)]

    def _belongs_elsewhere(self, delivery: Delivery, free_slots: int, executor: Executor) -> bool:
        task = delivery.task
        return (
            delivery.delivered < pull_plan.MOST_DELIVERIES
            and pull_plan.must_wait(delivery.cores, free_slots, self._busy_s(self.means_s(executor)))
            and self._others_start(task.kind, task.requires)
        )

    def _free_slots(self, executor: Executor) -> int:
        free_cores = executor.free_cores
        if self._wide:
            free_cores -= sum(delivery.cores - 1 for delivery in self._wide.values())
        return max(0, free_cores)

    def _busy_s(self, means_s: dict[str, float]) -> float:
        return max((means_s.get(kind, math.inf) for kind, count in self._running.items() if count), default=0.0)
