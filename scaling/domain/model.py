"""The nouns of capacity: what is seen, what is expected, what can be had, what is decided, what is remembered. Pure.

All of them are plain frozen values, so that a decision can be written down and made again. Capacity and load are
counted in nodes of the pool: a load of 7.5 keeps seven and a half nodes busy. Times are Unix seconds, money US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

STARTING, READY, DRAINING = "starting", "ready", "draining"
OWN, ON_DEMAND, SPOT = "own", "on-demand", "spot"


class Node(NamedTuple):
    """One node of a pool as the scaler sees it; one that was asked for and has not joined yet is `starting`."""

    id: str
    offer: str = ""
    """The id of the offer it came from; "" for a machine that is simply there."""
    state: str = READY
    launched_at: float = 0.0
    running: int = 0
    """Tasks it holds: a node with any is never drained by scale-in."""
    price_usd_h: float = 0.0
    market: str = OWN
    region: str = ""
    has_gpu: bool = False
    ending: bool = False
    """Its provider has announced that it will be taken away."""
    managed: bool = True
    """Whether the scaler may end it: machines that people started are counted, never drained."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What was seen of one pool: the nodes that can do its work, and the work."""

    name: str
    nodes: tuple[Node, ...] = ()
    load: float = 0.0
    """Work that arrives, in nodes that it keeps busy (arrivals/s x seconds a task / slots a node)."""
    cpu: float = 0.0
    """Share of the ready nodes' capacity in use, 0 to 1: at 1 the load may be any amount."""
    queued: int = 0
    """Waiting tasks."""
    task_s: float = 0.0
    """Mean run time of a task; 0 where none has been timed."""
    slots: int = 1
    """Tasks a node runs at the same time."""
    needs_gpu: bool = False
    region: str = ""
    """Hard residency: the only region (or the part of its name before a dash) in which its work may run."""
    demand_by_region: Mapping[str, float] = field(default_factory=dict)
    """region of origin -> share of the load"""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is there now, before a decision."""

    pools: tuple[Pool, ...]
    spent_today_usd: float = 0.0
    """Since midnight UTC, by what really ran."""
    failed_offers: tuple[str, ...] = ()
    """An offer for each launch that failed since the last decision."""
    joined_offers: tuple[str, ...] = ()
    """An offer for each node that joined since the last decision."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be held of a pool's load to come, and whether to act on it."""

    at_start: float
    """Of the load when a node that is started now is ready (start time and one step)."""
    until_start: float
    """Of the highest load from now until then: what must not be given up meanwhile."""
    median: float = 0.0
    """The load expected at `at_start`."""
    trusted: bool = False
    """Whether its own back-test beat reactive at equal violations."""
    model: str = ""
    """The model in force."""
    why: str = ""
    """In words: by how much it won or lost, or what is missing."""
    sure: float = 0.0
    """How likely the load is to be no higher than `at_start`."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that can be started: a machine type in a place, on a market, at a price."""

    id: str
    provider: str
    type: str = ""
    region: str = ""
    zone: str = ""
    market: str = OWN
    price_usd_h: float = 0.0
    priced_on: str = ""
    """ISO date of the price."""
    vcpus: int = 1
    memory_gib: float = 0.0
    has_gpu: bool = False
    start_s: float = 120.0
    """From the order to the first task, as measured."""
    interruptions_h: float = 0.0
    """Expected interruptions an hour; 0 on demand."""
    egress_usd_gb: float = 0.0
    speed: Mapping[str, float] = field(default_factory=dict)
    """pool -> units of its work an hour, as measured"""
    available: int = 1_000_000
    """How many more can be had."""


class Proposal(NamedTuple):
    """What one policy wants, and why."""

    policy: str
    nodes: int
    """At least so many."""
    reason: str


class Launch(NamedTuple):
    """Start `count` nodes of this offer."""

    offer: str
    count: int
    price_usd_h: float


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """What is to happen to one pool."""

    pool: str
    have: int
    """Nodes that are ready or starting and will stay, before."""
    target: int
    """Nodes there are to be."""
    launches: tuple[Launch, ...] = ()
    drains: tuple[str, ...] = ()
    """Ids of nodes that are to take no more work, and end when they hold none."""
    ends: tuple[str, ...] = ()
    """Ids of drained nodes that hold nothing any more."""
    proposals: tuple[Proposal, ...] = ()
    trail: tuple[str, ...] = ()
    """From the first proposal to the last limit, a sentence each; never empty."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen now, pool by pool, and what it does to the bill."""

    at: float
    pools: tuple[PoolDecision, ...]
    running_usd_h: float
    """What ran before."""
    launched_usd_h: float
    """What the launches add."""


class Breaker(NamedTuple):
    """What is remembered of an offer that failed."""

    failures: int
    shunned_until: float


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What is remembered of a pool between two decisions."""

    up_votes: int = 0
    down_votes: int = 0
    needs: tuple[tuple[float, int], ...] = ()
    """(when, how many nodes were needed): the falling line of maxima within the stabilisation window"""
    lows: tuple[tuple[float, int], ...] = ()
    """The rising line of minima, for scaling out"""
    lowered_at: float = float("-inf")
    """When nodes were last drained"""
    asked_at: float = float("-inf")
    """When there was last any work"""
    peak_at: float = float("-inf")
    """When the baseline was last reached or passed"""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two decisions; the first one starts with an empty one."""

    pools: Mapping[str, PoolMemory] = field(default_factory=dict)
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
