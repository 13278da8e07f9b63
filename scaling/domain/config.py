"""Settings of the scaler: frozen, units last in the name, one line under each that says what it does. Pure.

Times are seconds, money US dollars, shares lie between 0 and 1. `NaN` and contradictions are refused when made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

REACTIVE, PREDICTIVE, HYBRID = "reactive", "predictive", "hybrid"
MODES = (REACTIVE, PREDICTIVE, HYBRID)

#: Loops and limits that would spin, or give up at once.
_PERIODS = (
    "decide_every_s",
    "load_window_s",
    "join_within_s",
    "call_timeout_s",
    "dead_man_s",
    "journal_every_s",
    "forecast_limit_s",
    "history_weeks",
)


@dataclass(frozen=True)
class ScalingConfig:
    """How capacity follows demand; each pool of nodes is decided by the same settings."""

    # --- what decides
    mode: str = HYBRID
    """reactive: what is seen only; predictive: every forecast; hybrid: forecasts whose own back-test beat reactive."""

    # --- bounds
    min_nodes: int = 0
    """Nodes a pool never goes below; 0 lets it go to zero."""
    max_nodes: int = 100
    """Nodes a pool never goes above, those that are starting counted."""
    max_step_up_nodes: int = 50
    """Most nodes started by one decision."""
    max_step_down_nodes: int = 50
    """Most nodes drained by one decision."""

    # --- reactive: up
    cpu_up: float = 0.80
    """More of the nodes' capacity in use than this: scale out."""
    headroom: float = 0.25
    """Room above the load that is seen when sizing: 0.25 = a quarter more, which puts use at 80 %."""
    queue_target_tasks: float = 10.0
    """Waiting tasks a node: more than this is a backlog."""
    backlog_target_s: float = 300.0
    """A backlog is to be worked off in this time."""
    up_votes: int = 1
    """Decisions in a row that must want more before any node is started (an empty pool with work doesn't wait)."""
    up_window_s: float = 0.0
    """Only what was needed throughout this time starts nodes; 0 starts them at once."""

    # --- reactive: down
    cpu_down: float = 0.30
    """Scale in only below this use."""
    down_votes: int = 2
    """Decisions in a row that must want fewer before any node is drained."""
    down_window_s: float = 300.0
    """Scale in to the most that was needed within this time, and not twice within it."""
    to_zero_after_s: float = 600.0
    """Nothing asked for this long: the last node may go, where `min_nodes` is 0."""
    min_life_s: float = 300.0
    """A node is not drained before it is this old: what it cost to start is to be used."""

    # --- kept in hand
    warm_spares_nodes: int = 0
    """Nodes kept above what the load needs, while there is any."""
    baseline_nodes: int = 0
    """Nodes kept after a peak of at least as many, for `baseline_keep_s`."""
    baseline_keep_s: float = 3600.0
    """How long the baseline is kept."""
    schedule: tuple[str, ...] = ()
    """Rules such as "weekdays 8 to 18, at least 5"; the highest that holds counts."""
    timezone: str = "UTC"
    """IANA name of the zone the schedule's hours are in."""

    # --- predictive
    quantile: float = 0.95
    """The upper quantile of the forecast that capacity is sized for, and by which it is compared with reactive."""
    violation_nodes: float = 0.0
    """What a step without enough capacity is worth, in nodes for that step: as many whole nodes are held as cost the
    least with the violations they leave. 0: `quantile` is held."""
    forecast_headroom: float = 0.0
    """Room above what is held of the forecast."""
    seen_headroom: float = 0.0
    """Room above the load that is seen while a forecast is trusted to see the next rise."""
    trusted_down_votes: int = 1
    """In the place of `down_votes` while a forecast is trusted: it has looked ahead already."""
    trusted_down_window_s: float = 0.0
    """In the place of `down_window_s` while a forecast is trusted."""

    history_weeks: float = 4.0
    """So much of the load history a forecast is made from, where METRICS holds as much."""
    forecast_limit_s: float = 60.0
    """A fit (all pools' forecasts at once) that takes longer is stopped, and the last forecast is in force a while."""

    # --- money
    budget_usd_h: float = math.inf
    """What may run at any moment, per hour: no launch goes over it."""
    budget_usd_day: float = math.inf
    """What may be spent in a day (UTC): no launch goes over it, and what is left is guarded by draining."""
    commit_s: float = 3600.0
    """A launch is weighed as if everything that runs went on for this long (but not past the end of the day)."""

    # --- the loop
    decide_every_s: float = 5.0
    """How often the master looks and decides."""
    load_window_s: float = 60.0
    """What arrived in this time is the load that is seen."""
    providers: tuple[str, ...] = ("local",)
    """Which providers may start nodes; local: processes on the master's machine."""
    join_within_s: float = 120.0
    """A node that has not joined after this long is ended and counts as a failure of its offer."""
    settle_s: float = 30.0
    """A launch without an answer, of which its provider knows nothing after this long, did not happen."""
    call_timeout_s: float = 20.0
    """A provider that has not answered a call after this long is taken not to answer."""
    dead_man_s: float = 300.0
    """A started node that has not reached the mesh for this long ends itself."""
    journal_every_s: float = 600.0
    """Decisions that change nothing are journaled this often; those that do at once."""

    # --- which offers
    expected_life_s: float = 3600.0
    """How long a node is expected to be kept, over which its start is paid off."""
    rework_s: float = 120.0
    """Work lost by one interruption."""
    egress_gb_h: float = 0.0
    """Data that leaves a node's region, gigabytes an hour."""
    on_demand_floor: float = 0.3
    """Share of a pool's rented nodes that is never spot."""
    spot_share_of_one: float = 0.5
    """Most of a pool's spot nodes in one type and zone, where there is another."""
    breaker_failures: int = 2
    """Failures of an offer in a row that open its circuit breaker."""
    breaker_s: float = 900.0
    """How long a broken offer is left alone; doubled by each further failure, at most sixteen times."""
    near_premium: float = 0.25
    """How much dearer an offer near the demand may be than the cheapest one elsewhere."""
    places: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """region -> (latitude, longitude) in degrees: what "near" means where names don't say it."""

    def __post_init__(self) -> None:
        faults = self.faults()
        if faults:
            raise ValueError("; ".join(faults))

    def faults(self) -> list[str]:
        """What is wrong with these settings, a phrase each."""
        found = [f"{name} must not be NaN" for name in _numbers() if math.isnan(getattr(self, name))]
        found += [f"{name} must not be below 0" for name in _numbers() if getattr(self, name) < 0]
        shares = ("cpu_up", "cpu_down", "quantile", "on_demand_floor", "spot_share_of_one")
        found += [f"{name} must lie between 0 and 1" for name in shares if getattr(self, name) > 1]
        if self.mode not in MODES:
            found.append(f"mode must be one of {', '.join(MODES)}")
        if self.min_nodes > self.max_nodes:
            found.append("min_nodes must not be above max_nodes")
        if self.settle_s < self.call_timeout_s:
            found.append("settle_s must not be below call_timeout_s")
        if self.cpu_down > self.cpu_up:
            found.append("cpu_down must not be above cpu_up")
        if min(self.up_votes, self.down_votes, self.trusted_down_votes) < 1:
            found.append("votes must be at least 1")
        if not self.quantile < 1:
            found.append("quantile must be below 1")
        above_zero = ("cpu_up", "queue_target_tasks", "backlog_target_s", "expected_life_s", "quantile", *_PERIODS)
        found += [f"{name} must be above 0" for name in above_zero if getattr(self, name) == 0]
        return found


def _numbers() -> tuple[str, ...]:
    return tuple(one.name for one in fields(ScalingConfig) if one.type in ("int", "float"))
