"""Simulates a demand over time, with a simulated provider and clock and the `decide` of a mesh. Pure.

Nodes take time to start, some never join, spot nodes are taken away. Which ones depends only on a seed and the number
of the launch, so a simulation always gives the same result. A node counts in the steps for which it is ready from
beginning to end; it costs money from its launch to its end, whatever its state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, log

from scaling.decision.decide import decide
from scaling.decision.policies.cost import choose_offers
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
from scaling.domain.units import DAY_S, HOUR_S, NODE_EPSILON

POOL = "work"
#: Notice with which a provider takes a spot node away, seconds.
NOTICE_S = 120.0
#: Time in which an idle node drains, seconds.
DRAIN_S = 30.0


@dataclass(frozen=True)
class Scenario:
    """The conditions of a simulation."""

    step_s: float
    """Length of a step, seconds"""
    offers: tuple[Offer, ...]
    fail_share: float = 0.002
    """Share of launches that never join"""
    task_s: float = 60.0
    """Run time of a task, from which the length of the queue follows"""
    begins_at: float = 0.0
    """Unix time of step 0"""
    seed: int = 1


@dataclass
class Run:
    """The result of a simulation, one value per step."""

    ready: list[int] = field(default_factory=list[int])
    """Nodes that worked from the step's beginning to its end"""
    cost_usd: list[float] = field(default_factory=list[float])
    node_h: list[float] = field(default_factory=list[float])
    violating: int = 0
    """Steps in which the demand was above the ready nodes"""
    actions: int = 0
    """Decisions that started or drained nodes"""
    decisions: list[PoolDecision] = field(default_factory=list[PoolDecision])
    stopped_early: bool = False
    """A limit was exceeded, and the rest was not simulated"""


class SimulatedProvider:
    """Starts and ends simulated nodes."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._offers = {offer.id: offer for offer in scenario.offers}
        self._ends: dict[str, float] = {}
        """node -> when it is taken away"""
        self._never_join: set[str] = set()
        self._number = 0
        self.nodes: list[Node] = []

    def start(self, offer: str, now: float, state: str = STARTING) -> None:
        """Start one node, so that it is ready at the beginning of a step.

        A node that is ready within a step does not count in it, so that part is not paid for either.
        """
        self._number += 1
        chosen, name = self._offers[offer], f"n{self._number}"
        step_s = self._scenario.step_s
        if state == STARTING:
            now += ceil(chosen.start_s / step_s) * step_s - chosen.start_s
        chance = random.Random(self._scenario.seed * 1_000_003 + self._number)
        fails, lives = chance.random(), chance.random()
        if state == STARTING and fails < self._scenario.fail_share:
            self._never_join.add(name)
        if chosen.interruptions_h > 0:
            self._ends[name] = now - log(max(lives, 1e-12)) / chosen.interruptions_h * HOUR_S
        self.nodes.append(
            Node(name, offer, state, now, 0, chosen.price_usd_h, chosen.market, chosen.region, chosen.has_gpu)
        )

    def advance(self, now: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Advance to `now`; returns (the offers of launches that failed, the offers of nodes that joined)."""
        failed: list[str] = []
        joined: list[str] = []
        left: list[Node] = []
        for before in self.nodes:
            node = before
            if node.state == STARTING and now - node.launched_at >= self._offers[node.offer].start_s - NODE_EPSILON:
                if node.id in self._never_join:
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
        """Give tasks to this many of the ready nodes, the oldest first."""
        busy, after = nodes, list[Node]()
        for node in self.nodes:
            running = int(node.state == READY and busy > 0)
            busy -= running
            after.append(node if node.running == running else node._replace(running=running))
        self.nodes = after

    def drop(self, names: set[str]) -> list[Node]:
        """End these nodes; returns them."""
        gone = [node for node in self.nodes if node.id in names]
        self.nodes = [node for node in self.nodes if node.id not in names]
        return gone

    def ready_until(self, until: float) -> int:
        """Nodes that are ready now and not taken away before `until`."""
        if not self._ends:
            return sum(1 for node in self.nodes if node.state == READY)
        return sum(1 for node in self.nodes if node.state == READY and self._ends.get(node.id, inf) > until)


def simulate(
    demand: Sequence[float],
    first: int,
    end: int,
    scenario: Scenario,
    config: ScalingConfig,
    forecast: Callable[[int], Forecast | None] = lambda step: None,
    violations_limit: float = inf,
    cost_limit: float = inf,
    counted_from: int = 0,
    keep_decisions: bool = False,
) -> Run:
    """Simulate steps `first` to `end` of `demand` (nodes kept busy in each step), with a decision at each beginning.

    The decision at step t knows demand[:t] only; `forecast(t)` is the forecast made then. The run stops early when more
    than `violations_limit` steps from `counted_from` on are violating, or these steps cost more than `cost_limit`.
    """
    provider, memory, run = SimulatedProvider(scenario), Memory(), Run()
    now = scenario.begins_at + first * scenario.step_s
    begin = ceil(demand[max(0, first - 1)] * (1 + config.headroom))
    for launch in choose_offers(Pool(POOL), begin, [], scenario.offers, inf, {}, config, now)[0]:
        for _ in range(launch.count):
            provider.start(launch.offer, now - config.min_life_s - 1, READY)
    backlog, before, spent, day, total = 0.0, 0, 0.0, -1, 0.0
    hours = scenario.step_s / HOUR_S
    for step in range(first, end):
        now = scenario.begins_at + step * scenario.step_s
        if now // DAY_S != day:
            spent, day = 0.0, now // DAY_S
        failed, joined = provider.advance(now)
        load = demand[step - 1] if step else 0.0
        provider.work(ceil(min(load + backlog, 1e9) - NODE_EPSILON))
        utilization = min(1.0, (load + backlog) / before) if before else 0.0
        queued = int(backlog * scenario.step_s / scenario.task_s)
        pool = Pool(POOL, tuple(provider.nodes), load, utilization, queued, scenario.task_s)
        made_then = forecast(step)
        observation = Observation((pool,), spent, failed, joined)
        forecasts = {POOL: made_then} if made_then else {}
        decision, memory = decide(observation, forecasts, scenario.offers, config, memory, now)
        cost, node_h = _carry_out(decision, provider, now, hours)
        before = provider.ready_until(now + scenario.step_s)
        backlog = max(0.0, backlog + demand[step] - before)
        run.ready.append(before)
        run.cost_usd.append(cost)
        run.node_h.append(node_h)
        spent, total = spent + cost, total + (cost if step >= counted_from else 0.0)
        decided = decision.pools[0]
        run.actions += bool(decided.launches or decided.drains)
        run.violating += demand[step] > before + NODE_EPSILON and step >= counted_from
        if keep_decisions:
            run.decisions.append(decided)
        if run.violating > violations_limit or total > cost_limit:
            run.stopped_early = True
            break
    return run


def _carry_out(decision: Decision, provider: SimulatedProvider, now: float, hours: float) -> tuple[float, float]:
    """(dollars, node hours) of the step that begins now, after the decision was carried out."""
    decided = decision.pools[0]
    gone = provider.drop({*decided.drains, *decided.ends})
    # Nodes that held tasks or are taken away stay for the whole step, and do no more work in it.
    stays = [hours if node.running or node.ending else min(hours, DRAIN_S / HOUR_S) for node in gone]
    for launch in decided.launches:
        for _ in range(launch.count):
            provider.start(launch.offer, now)
    node_h = len(provider.nodes) * hours + sum(stays)
    cost = sum(node.price_usd_h for node in provider.nodes) * hours
    cost += sum(node.price_usd_h * stay for node, stay in zip(gone, stays, strict=True))
    for node in provider.nodes:
        if node.launched_at > now:  # launched within the step
            late = min(hours, (node.launched_at - now) / HOUR_S)
            node_h, cost = node_h - late, cost - late * node.price_usd_h
    return cost, node_h


def default_offers(start_s: float, price_usd_h: float = 0.192) -> tuple[Offer, ...]:
    """One type on demand, and two on spot in two zones at 35 and 40 % of its price, one interruption in 500 hours."""
    spot = [("a", "x", 0.35), ("b", "y", 0.40)]
    return (
        Offer("on-demand", "simulated", "a", "here", "x", ON_DEMAND, price_usd_h, start_s=start_s),
        *(
            Offer(f"spot-{kind}", "simulated", kind, "here", zone, SPOT, price_usd_h * share, start_s=start_s,
                  interruptions_h=0.002)
            for kind, zone, share in spot
        ),
    )  # fmt: skip
