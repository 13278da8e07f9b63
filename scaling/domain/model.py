"""The values of the scaler: what is observed, forecast, offered, decided and remembered. Pure.

All of them are frozen, so that a decision can be journaled and replayed. Capacity and load are counted in nodes of the
pool: a load of 7.5 keeps seven and a half nodes busy. Times are Unix seconds, money is US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

STARTING, READY, DRAINING = "starting", "ready", "draining"
OWN, ON_DEMAND, SPOT = "own", "on-demand", "spot"


class Node(NamedTuple):
    """One node of a pool as the scaler sees it; a node that is ordered and has not joined yet is `starting`."""

    id: str
    offer: str = ""
    """Id of the offer it came from; "" for a node that people started."""
    state: str = READY
    launched_at: float = 0.0
    running: int = 0
    """Tasks it holds: scale-in never drains a node that holds any."""
    price_usd_h: float = 0.0
    market: str = OWN
    region: str = ""
    has_gpu: bool = False
    ending: bool = False
    """Whether its provider has announced to take it away."""
    managed: bool = True
    """Whether the scaler may end it: nodes that people started are counted, never drained."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool as observed: the nodes that can do its work, and the work."""

    name: str
    nodes: tuple[Node, ...] = ()
    load: float = 0.0
    """Work that arrives, in nodes it keeps busy (arrivals/s x seconds per task / slots per node)."""
    cpu: float = 0.0
    """Share of the ready nodes' capacity in use, 0 to 1; at 1 the load may be any higher amount."""
    queued: int = 0
    """Waiting tasks."""
    task_s: float = 0.0
    """Mean run time of a task; 0 where no task has been timed."""
    slots: int = 1
    """Tasks a node runs at the same time."""
    needs_gpu: bool = False
    region: str = ""
    """Hard residency: the only region (or the part of its name before a dash) in which its work may run."""
    demand_by_region: Mapping[str, float] = field(default_factory=dict)
    """region of origin -> share of the load"""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a decision is based on."""

    pools: tuple[Pool, ...]
    spent_today_usd: float = 0.0
    """Since midnight UTC, by the nodes that ran."""
    failed_offers: tuple[str, ...] = ()
    """The offer of each launch that failed since the last decision."""
    joined_offers: tuple[str, ...] = ()
    """The offer of each node that joined since the last decision."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The capacity to hold for a pool's future load, and whether to act on it."""

    at_start: float
    """For the load when a node that is started now is ready (start time plus one step)."""
    until_start: float
    """For the highest load from now until then: capacity that must not be given up before."""
    median: float = 0.0
    """The load expected when a node that is started now is ready."""
    trusted: bool = False
    """Whether its back-test beat reactive at equal violations."""
    model: str = ""
    """Name of the model in force."""
    why: str = ""
    """In words: by how much it won or lost, or what is missing."""
    sure: float = 0.0
    """Probability that the load is not above `at_start`."""


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
    """Time from the order to the first task, as measured."""
    interruptions_h: float = 0.0
    """Expected interruptions per hour; 0 on demand."""
    egress_usd_gb: float = 0.0
    speed: Mapping[str, float] = field(default_factory=dict)
    """pool -> units of its work per hour, as measured"""
    available: int = 1_000_000
    """How many more nodes of it can be started."""


class Proposal(NamedTuple):
    """The number of nodes one policy asks for, and why."""

    policy: str
    nodes: int
    """At least this many."""
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
    """Nodes before: ready or starting, and staying."""
    target: int
    """Nodes after."""
    launches: tuple[Launch, ...] = ()
    drains: tuple[str, ...] = ()
    """Ids of nodes that take no more work, and end when they hold none."""
    ends: tuple[str, ...] = ()
    """Ids of drained nodes that hold no task any more."""
    proposals: tuple[Proposal, ...] = ()
    trail: tuple[str, ...] = ()
    """The reasons, one sentence per step from the first proposal to the last limit; never empty."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen now, pool by pool, and what it costs."""

    at: float
    pools: tuple[PoolDecision, ...]
    running_usd_h: float
    """Price of the nodes there were before."""
    launched_usd_h: float
    """Price of the launches."""


class Breaker(NamedTuple):
    """Circuit breaker of an offer whose launches failed."""

    failures: int
    open_until: float


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What one decision about a pool leaves for the next."""

    up_votes: int = 0
    down_votes: int = 0
    max_needs: tuple[tuple[float, int], ...] = ()
    """(time, nodes needed): the decreasing maxima within the scale-in window"""
    min_needs: tuple[tuple[float, int], ...] = ()
    """(time, nodes needed): the increasing minima within the scale-out window"""
    last_scale_in_at: float = float("-inf")
    last_work_at: float = float("-inf")
    """When there was last any work."""
    last_peak_at: float = float("-inf")
    """When the baseline was last reached or exceeded."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves for the next; the first one begins with an empty memory."""

    pools: Mapping[str, PoolMemory] = field(default_factory=dict[str, PoolMemory])
    breakers: Mapping[str, Breaker] = field(default_factory=dict[str, Breaker])
