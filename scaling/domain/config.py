"""Settings of the scaler: frozen, the unit last in each name, one line under each that says what it does. Pure.

Times are seconds, money is US dollars, shares lie between 0 and 1. NaN and contradictory settings raise ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

REACTIVE, PREDICTIVE, HYBRID = "reactive", "predictive", "hybrid"
MODES = (REACTIVE, PREDICTIVE, HYBRID)

#: At 0, these would make a loop spin or a call give up at once.
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
    """How capacity follows demand; every pool of nodes is decided by the same settings."""

    # --- policies
    mode: str = HYBRID
    """reactive: observed load only; predictive: every forecast; hybrid: forecasts whose back-test beat reactive."""

    # --- bounds
    min_nodes: int = 0
    """Fewest nodes of a pool; 0 lets it scale to zero."""
    max_nodes: int = 100
    """Most nodes of a pool, starting ones included."""
    max_step_up_nodes: int = 50
    """Most nodes started by one decision."""
    max_step_down_nodes: int = 50
    """Most nodes drained by one decision."""

    # --- reactive: up
    cpu_up: float = 0.80
    """Utilization above which to scale out."""
    headroom: float = 0.25
    """Spare capacity above the observed load: 0.25 is a quarter more, which puts utilization at 80 %."""
    queue_target_tasks: float = 10.0
    """Waiting tasks per node above which there is a backlog."""
    backlog_target_s: float = 300.0
    """Time in which a backlog is to be worked off."""
    up_votes: int = 1
    """Decisions in a row that must ask for more before a node is started (an empty pool with work doesn't wait)."""
    up_window_s: float = 0.0
    """Only a need that lasted this long starts nodes; 0 starts them at once."""

    # --- reactive: down
    cpu_down: float = 0.30
    """Utilization below which to scale in."""
    down_votes: int = 2
    """Decisions in a row that must ask for fewer before a node is drained."""
    down_window_s: float = 300.0
    """Scale in to the highest need within this time, and not twice within it."""
    to_zero_after_s: float = 600.0
    """Time without work after which the last node may go, where `min_nodes` is 0."""
    min_life_s: float = 300.0
    """Age below which a node is not drained: its start has to pay off."""

    # --- reserves
    warm_spares_nodes: int = 0
    """Nodes kept above what the load needs, while there is any load."""
    baseline_nodes: int = 0
    """Nodes kept after a peak of at least as many, for `baseline_keep_s`."""
    baseline_keep_s: float = 3600.0
    """How long the baseline is kept."""
    schedule: tuple[str, ...] = ()
    """Rules such as "weekdays 8 to 18, at least 5"; of those in force the highest counts."""
    timezone: str = "UTC"
    """IANA name of the time zone of the schedule's hours."""

    # --- predictive
    quantile: float = 0.95
    """Upper quantile of the forecast that capacity is sized for, and at which it is compared with reactive."""
    violation_nodes: float = 0.0
    """Price of a step without enough capacity, in nodes for that step: the number of whole nodes is held that costs
    the least together with the violations it leaves. 0: `quantile` is held."""
    forecast_headroom: float = 0.0
    """Spare capacity above what the forecast asks for."""
    seen_headroom: float = 0.0
    """Spare capacity above the observed load while a forecast is trusted to foresee the next rise."""
    trusted_down_votes: int = 1
    """Replaces `down_votes` while a forecast is trusted: the forecast has looked ahead already."""
    trusted_down_window_s: float = 0.0
    """Replaces `down_window_s` while a forecast is trusted."""

    history_weeks: float = 4.0
    """Length of the load history behind a forecast, as far as METRICS holds it."""
    forecast_limit_s: float = 60.0
    """Time limit of a fit (all pools together). A fit that exceeds it is stopped; the last forecast then stays in
    force for a while."""

    # --- money
    budget_usd_h: float = math.inf
    """Limit on what runs at any moment, per hour: no launch exceeds it."""
    budget_usd_day: float = math.inf
    """Limit on a day's spending (UTC): no launch exceeds it, and nodes are drained to keep it."""
    commit_s: float = 3600.0
    """A launch is weighed as if everything that runs went on for this long, up to the end of the day."""

    # --- the control loop
    decide_every_s: float = 5.0
    """Period of the leader's control cycle."""
    load_window_s: float = 60.0
    """Window over which arrivals are counted as the observed load."""
    providers: tuple[str, ...] = ("local",)
    """Providers that may start nodes; local: processes on the leader's machine."""
    join_within_s: float = 120.0
    """A node that has not joined after this long is terminated and counts as a failure of its offer."""
    settle_s: float = 30.0
    """A launch without an answer did not happen if its provider lists nothing for it after this long."""
    call_timeout_s: float = 20.0
    """Time limit of a call to a provider."""
    dead_man_s: float = 300.0
    """A started node that has not reached the mesh for this long ends itself."""
    journal_every_s: float = 600.0
    """Period at which decisions that change nothing are journaled; decisions that act are journaled at once."""

    # --- offers
    expected_life_s: float = 3600.0
    """Expected lifetime of a node, over which its start is paid off."""
    rework_s: float = 120.0
    """Work lost by one interruption."""
    egress_gb_h: float = 0.0
    """Data that leaves a node's region, gigabytes per hour."""
    on_demand_floor: float = 0.3
    """Share of a pool's rented nodes that is never spot."""
    spot_share_of_one: float = 0.5
    """Largest share of a pool's spot nodes in one type and zone, while there is another."""
    breaker_failures: int = 2
    """Failures of an offer in a row that open its circuit breaker."""
    breaker_s: float = 900.0
    """Pause of an offer whose breaker is open; each further failure doubles it, up to sixteen times."""
    near_premium: float = 0.25
    """How much dearer an offer near the demand may be than the cheapest offer."""
    places: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """region -> (latitude, longitude) in degrees: distances between regions whose names don't tell."""

    def __post_init__(self) -> None:
        faults = self.faults()
        if faults:
            raise ValueError("; ".join(faults))

    def faults(self) -> list[str]:
        """What is wrong with these settings, one phrase per fault, each beginning with the setting's name."""
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
    return tuple(setting.name for setting in fields(ScalingConfig) if setting.type in ("int", "float"))
