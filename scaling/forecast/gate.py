"""The gate: a forecast may decide only where its own back-test beat reactive at equal violations. Pure.

Over the look-back, the capacity that the forecast would have held is compared with the best of a family of reactive
policies (the highest load of the last w steps, delayed by a start). Each capacity is scaled until it violates in one
step of a hundred; then the cheaper mean wins. This is a continuous stand-in for the whole simulation, cheap enough to
be renewed all day long. The longer and the recent past must both agree, and an open gate closes later than it opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaling.domain.model import Forecast
from scaling.domain.units import DAY_S, HOUR_S, WEEK_S
from scaling.forecast.capacity_target import CapacityPlan
from scaling.forecast.walk_forward import ERROR_FLOOR, RENEWALS, look_back, running_mean

if TYPE_CHECKING:
    from numpy import ndarray

#: Share of the steps that may have too little capacity.
VIOLATIONS = 0.01
#: The gate opens when the forecast costs less than this share of reactive, and closes above the other.
OPENS, CLOSES = 0.93, 0.98
#: Steps of the recent past that must agree; with fewer known outcomes than LEAST the gate stays shut.
RECENT, LEAST = 576, 200
#: Windows of the reactive family, seconds.
WINDOWS_S = (0.0, HOUR_S, 4 * HOUR_S, DAY_S, WEEK_S)


@dataclass(frozen=True)
class Gate:
    """One row per origin: whether the forecast is trusted, and its cost over reactive's (NaN: unknown)."""

    trusted: ndarray
    ratio: ndarray

    def why(self, origin: int) -> str:
        """The verdict at an origin, in words."""
        ratio = float(self.ratio[origin])
        if ratio != ratio:
            return "the history is too short for a back-test"
        comparison = "less" if ratio < 1 else "more"
        return f"recently it would have cost {abs(1 - ratio):.0%} {comparison} than reactive at equal violations"


def gate(loads: ndarray, plan: CapacityPlan, step_s: float) -> Gate:
    """For each origin t, by loads[:t] and the forecasts made before it (a plan of a quantile, not of whole nodes)."""
    import numpy as np

    size, lag = len(loads) + 1, plan.ahead
    back = look_back(step_s)
    floor = ERROR_FLOOR * running_mean(loads, back)[:-1]
    held = held_capacity(loads, plan)
    family = [delayed_max(loads, lag, round(window_s / step_s)) for window_s in WINDOWS_S]
    trusted, ratio = np.zeros(size, dtype=bool), np.full(size, np.nan)
    every = max(1, back // RENEWALS)
    is_open = False
    for start in range(0, size, every):
        ratios: list[float] = []
        for steps in (back, RECENT):
            past = slice(max(0, start - steps), start)
            known = ~np.isnan(held[past])
            if known.sum() < LEAST:
                break
            observed, least = loads[past][known], floor[past][known]
            reactive = min(cost_and_factor(observed, capacity[past][known], least)[0] for capacity in family)
            ratios.append(cost_and_factor(observed, held[past][known], least)[0] / max(reactive, 1e-12))
        if len(ratios) == 2:
            worst = max(ratios)
            is_open = worst < (CLOSES if is_open else OPENS)
            ratio[start : start + every] = worst
        else:
            is_open = False
        trusted[start : start + every] = is_open
    trusted &= ~np.isnan(plan.at_start)
    return Gate(trusted, ratio)


def forecasts_by_origin(plan: CapacityPlan, gated: Gate) -> list[Forecast | None]:
    """The forecast made at each origin, as `decide` takes it, the last one for now; None where no model is in force."""
    start, until, sure = plan.at_start.tolist(), plan.until_start.tolist(), plan.sure.tolist()
    force, median, trusted = plan.in_force.tolist(), plan.median.tolist(), gated.trusted.tolist()
    return [
        Forecast(start[t], until[t], median[t], trusted[t], plan.names[force[t]], sure=sure[t])
        if force[t] >= 0
        else None
        for t in range(len(force))
    ]


def held_capacity(loads: ndarray, plan: CapacityPlan) -> ndarray:
    """(n): the capacity held in each step: what the forecast ordered for it, at least the load known by then."""
    import numpy as np

    lag = plan.ahead
    ordered = np.full(len(loads), np.nan)
    ordered[lag - 1 :] = plan.at_start[: len(loads) - lag + 1]
    return np.maximum(ordered, delayed_max(loads, lag, 0))


def delayed_max(loads: ndarray, lag: int, window: int) -> ndarray:
    """(n): the highest load of the `window` + 1 steps up to `lag` steps before each; before that, the first load."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    padded = np.concatenate([np.full(window + lag, loads[0] if len(loads) else 0.0), loads])
    return sliding_window_view(padded[: len(loads) + window], window + 1).max(axis=1) if len(loads) else loads


def cost_and_factor(observed: ndarray, capacity: ndarray, floor: ndarray | float) -> tuple[float, float]:
    """(mean capacity when scaled so that it violates in one step of a hundred, the factor of that scaling).

    `floor`: load that is added to both, so that quiet steps don't blow up the ratio.
    """
    import numpy as np

    factor = float(np.quantile((observed + floor) / (capacity + floor), 1.0 - VIOLATIONS))
    return factor * float(np.mean(capacity + floor)), factor
