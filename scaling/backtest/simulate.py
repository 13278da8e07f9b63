"""A pretend provider and a pretend clock: replays a demand through the very same `decide` as a mesh would. Pure.

Nodes take time to start, some never come, spot ones are taken away; which, depends on a seed and the number of the
launch only, so that a replay is the same each time. A node counts in the steps it is ready for from beginning to end;
it costs money from its launch to its end, whatever its state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, log

from scaling.decision.decide import decide
from scaling.decision.policies.cost import choose
from scaling.domain.config import ScalingConfig
from scaling.domain.model import (
    ON_DEMAND,
    READY,
    SPOT,
    STARTING,
    Decision,
    Forecast,
    Memory,
    Node,
    Observation,
    Offer,
    Pool,
    PoolDecision,
)
from scaling.domain.units import NODE_EPSILON

POOL = "work"
#: A provider tells this long before it takes a spot node away, seconds.
NOTICE_S = 120.0
#: An idle node that drains is gone after this long, seconds.
DRAIN_S = 30.0


@dataclass(frozen=True)
class World:
    """What is simulated."""

    step_s: float
    """Length of a step, seconds"""
    offers: tuple[Offer, ...]
    fail_share: float = 0.002
    """Launches that never join"""
    task_s: float = 60.0
    """Run time of a task, for the length of the queue"""
    begins_at: float = 0.0
    """Unix time of step 0"""
    seed: int = 1


@dataclass
class Run:
    """What happened, a value a step."""

    ready: list[int] = field(default_factory=list)
    """Nodes that worked from the step's beginning to its end"""
    cost_usd: list[float] = field(default_factory=list)
    node_h: list[float] = field(default_factory=list)
    violating: int = 0
    """Steps in which the demand was higher than what was ready"""
    actions: int = 0
    """Decisions that started or drained something"""
    decisions: list[PoolDecision] = field(default_factory=list)
    stopped_early: bool = False
    """A limit was passed: the rest was not run"""


class SimulatedProvider:
    """Starts and ends pretend nodes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._offers = {offer.id: offer for offer in world.offers}
        self._ends: dict[str, float] = {}
        self._never: set[str] = set()
        self._number = 0
        self.nodes: list[Node] = []

    def start(self, offer: str, now: float, state: str = STARTING) -> None:
        """Order one node, in time for the beginning of a step.

        The part of a step that a node would be ready before is not counted, so it is not paid for either.
        """
        self._number += 1
        what, name = self._offers[offer], f"n{self._number}"
        if state == STARTING:
            now += ceil(what.start_s / self._world.step_s) * self._world.step_s - what.start_s
        chance = random.Random(self._world.seed * 1_000_003 + self._number)
        fails, lives = chance.random(), chance.random()
        if state == STARTING and fails < self._world.fail_share:
            self._never.add(name)
        if what.interruptions_h > 0:
            self._ends[name] = now - log(max(lives, 1e-12)) / what.interruptions_h * 3600.0
        self.nodes.append(Node(name, offer, state, now, 0, what.price_usd_h, what.market, what.region, what.has_gpu))

    def advance(self, now: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Let what should have happened by `now` happen; (offers whose launch failed, offers whose nodes joined)."""
        failed, joined, left = [], [], []
        for before in self.nodes:
            node = before
            if node.state == STARTING and now - node.launched_at >= self._offers[node.offer].start_s - NODE_EPSILON:
                if node.id in self._never:
                    failed.append(node.offer)
                    continue
                joined.append(node.offer)
                node = node._replace(state=READY)
            ends = self._ends.get(node.id, inf) if self._ends else inf
            if ends <= now:
                continue
            if ends <= now + NOTICE_S:
                node = node._replace(ending=True)
            left.append(node)
        self.nodes = left
        return tuple(failed), tuple(joined)

    def work(self, nodes: int) -> None:
        """So many of the ready nodes hold tasks, the oldest first."""
        busy, seen = nodes, []
        for node in self.nodes:
            running = int(node.state == READY and busy > 0)
            busy -= running
            seen.append(node if node.running == running else node._replace(running=running))
        self.nodes = seen

    def drop(self, names: set[str]) -> list[Node]:
        """End these nodes; what they were."""
        gone = [node for node in self.nodes if node.id in names]
        self.nodes = [node for node in self.nodes if node.id not in names]
        return gone

    def ready_until(self, until: float) -> int:
        """Nodes that are ready now and not taken away before `until`."""
        if not self._ends:
            return sum(1 for node in self.nodes if node.state == READY)
        return sum(1 for node in self.nodes if node.state == READY and self._ends.get(node.id, inf) > until)


def replay(
    demand: Sequence[float],
    first: int,
    end: int,
    world: World,
    config: ScalingConfig,
    forecast: Callable[[int], Forecast | None] = lambda step: None,
    violations_limit: float = inf,
    cost_limit: float = inf,
    counted_from: int = 0,
    keep_decisions: bool = False,
) -> Run:
    """Steps `first` to `end` of `demand` (nodes kept busy, a value a step), decided at each step's beginning.

    A decision at step t is shown demand[:t] only. `forecast(t)` is asked for the forecast made then. The run stops
    early when more than `violations_limit` steps from `counted_from` on were violating, or cost more than `cost_limit`.
    """
    provider, memory, run = SimulatedProvider(world), Memory(), Run()
    now = world.begins_at + first * world.step_s
    begin = ceil(demand[max(0, first - 1)] * (1 + config.headroom))
    for launch in choose(Pool(POOL), begin, [], world.offers, inf, {}, config, now)[0]:
        for _ in range(launch.count):
            provider.start(launch.offer, now - config.min_life_s - 1, READY)
    backlog, before, spent, day, total = 0.0, 0, 0.0, -1, 0.0
    hours = world.step_s / 3600.0
    for step in range(first, end):
        now = world.begins_at + step * world.step_s
        if now // 86400 != day:
            spent, day = 0.0, now // 86400
        failed, joined = provider.advance(now)
        load = demand[step - 1] if step else 0.0
        provider.work(ceil(min(load + backlog, 1e9) - NODE_EPSILON))
        use = min(1.0, (load + backlog) / before) if before else 0.0
        queued = int(backlog * world.step_s / world.task_s)
        pool = Pool(POOL, tuple(provider.nodes), load, use, queued, world.task_s)
        expected = forecast(step)
        observation = Observation((pool,), spent, failed, joined)
        made, memory = decide(observation, {POOL: expected} if expected else {}, world.offers, config, memory, now)
        cost, node_h = _carry_out(made, provider, now, hours)
        before = provider.ready_until(now + world.step_s)
        backlog = max(0.0, backlog + demand[step] - before)
        run.ready.append(before)
        run.cost_usd.append(cost)
        run.node_h.append(node_h)
        spent, total = spent + cost, total + (cost if step >= counted_from else 0.0)
        decided = made.pools[0]
        run.actions += bool(decided.launches or decided.drains)
        run.violating += demand[step] > before + NODE_EPSILON and step >= counted_from
        if keep_decisions:
            run.decisions.append(decided)
        if run.violating > violations_limit or total > cost_limit:
            run.stopped_early = True
            break
    return run


def _carry_out(made: Decision, provider: SimulatedProvider, now: float, hours: float) -> tuple[float, float]:
    """(dollars, node hours) of the step that begins now, after what was decided was done."""
    decided = made.pools[0]
    gone = provider.drop({*decided.drains, *decided.ends})
    # What held tasks, or is taken away, is there for the whole step and works no more in it.
    stays = [hours if node.running or node.ending else min(hours, DRAIN_S / 3600.0) for node in gone]
    for launch in decided.launches:
        for _ in range(launch.count):
            provider.start(launch.offer, now)
    node_h = len(provider.nodes) * hours + sum(stays)
    cost = sum(node.price_usd_h for node in provider.nodes) * hours
    cost += sum(node.price_usd_h * stay for node, stay in zip(gone, stays, strict=True))
    for node in provider.nodes:
        if node.launched_at > now:  # not there for the whole step
            late = min(hours, (node.launched_at - now) / 3600.0)
            node_h, cost = node_h - late, cost - late * node.price_usd_h
    return cost, node_h


def default_offers(start_s: float, price_usd_h: float = 0.192) -> tuple[Offer, ...]:
    """A type on demand, and two on spot in two zones at 35 and 40 % of its price, one interruption in 500 hours."""
    spot = [("a", "x", 0.35), ("b", "y", 0.40)]
    return (
        Offer("on-demand", "simulated", "a", "here", "x", ON_DEMAND, price_usd_h, start_s=start_s),
        *(
            Offer(f"spot-{kind}", "simulated", kind, "here", zone, SPOT, price_usd_h * share, start_s=start_s,
                  interruptions_h=0.002)
            for kind, zone, share in spot
        ),
    )  # fmt: skip
