"""Whether a forecast may decide: only where its own back-test beat reactive at equal violations. Pure.

Over what is looked back on, the capacity that the forecast would have held is compared with the best of a family of
reactive ones (the highest load of the last w steps, seen as late as a start takes). Each is multiplied by what makes it
violate in one step of a hundred, and then the cheaper mean wins: a continuous stand-in for the whole simulation, cheap
enough to be renewed all day long. The longer and the recent past must both agree, and an open gate closes later than it
opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaling.domain.model import Forecast
from scaling.forecast.capacity_target import CapacityPlan
from scaling.forecast.walk_forward import GRAIN, RENEWALS, look_back, running_mean

if TYPE_CHECKING:
    from numpy import ndarray

#: Steps that may find too little capacity.
VIOLATIONS = 0.01
#: Opens when the forecast costs less than this share of reactive, closes above the other.
OPENS, CLOSES = 0.93, 0.98
#: Steps of the recent past that must agree; with fewer outcomes than that the gate stays shut.
RECENT, LEAST = 576, 200
#: Windows of the reactive family, seconds.
WINDOWS_S = (0.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0)


@dataclass(frozen=True)
class Gate:
    """A row an origin: whether the forecast is trusted; its cost over reactive's by the back-test (NaN: unknown)."""

    trusted: ndarray
    ratio: ndarray

    def why(self, origin: int) -> str:
        """In words."""
        ratio = float(self.ratio[origin])
        if ratio != ratio:
            return "its history is too short to be back-tested"
        word = "less" if ratio < 1 else "more"
        return f"it would have cost {abs(1 - ratio):.0%} {word} than reactive at equal violations lately"


def gate(loads: ndarray, forecasts: CapacityPlan, step_s: float) -> Gate:
    """For each origin t, by loads[:t] and the forecasts made before it (those of a quantile, not of whole nodes)."""
    import numpy as np

    size, lag = len(loads) + 1, forecasts.ahead
    back = look_back(step_s)
    grain = GRAIN * running_mean(loads, back)[:-1]
    plan = planned(loads, forecasts)
    family = [delayed_max(loads, lag, round(window_s / step_s)) for window_s in WINDOWS_S]
    trusted, ratio = np.zeros(size, dtype=bool), np.full(size, np.nan)
    every = max(1, back // RENEWALS)
    is_open = False
    for start in range(0, size, every):
        found = []
        for steps in (back, RECENT):
            past = slice(max(0, start - steps), start)
            there = ~np.isnan(plan[past])
            if there.sum() < LEAST:
                break
            seen, least = loads[past][there], grain[past][there]
            reactive = min(cost_and_factor(seen, one[past][there], least)[0] for one in family)
            found.append(cost_and_factor(seen, plan[past][there], least)[0] / max(reactive, 1e-12))
        if len(found) == 2:
            worst = max(found)
            is_open = worst < (CLOSES if is_open else OPENS)
            ratio[start : start + every] = worst
        else:
            is_open = False
        trusted[start : start + every] = is_open
    trusted &= ~np.isnan(forecasts.at_start)
    return Gate(trusted, ratio)


def expected(forecasts: CapacityPlan, gated: Gate) -> list[Forecast | None]:
    """The forecast made at each origin, as `decide` takes it, the last one for now; None where no model is in force."""
    start, until, sure = (one.tolist() for one in (forecasts.at_start, forecasts.until_start, forecasts.sure))
    force, median, trusted = forecasts.in_force.tolist(), forecasts.median.tolist(), gated.trusted.tolist()
    return [
        Forecast(start[t], until[t], median[t], trusted[t], forecasts.names[force[t]], sure=sure[t])
        if force[t] >= 0
        else None
        for t in range(len(force))
    ]


def planned(loads: ndarray, forecasts: CapacityPlan) -> ndarray:
    """(n): the capacity held in each step by the forecast: what was ordered for it, not less than was seen by then."""
    import numpy as np

    lag = forecasts.ahead
    ordered = np.full(len(loads), np.nan)
    ordered[lag - 1 :] = forecasts.at_start[: len(loads) - lag + 1]
    return np.maximum(ordered, delayed_max(loads, lag, 0))


def delayed_max(loads: ndarray, lag: int, window: int) -> ndarray:
    """(n): the highest load of the `window` + 1 steps up to `lag` steps before each; before that, the first load."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    padded = np.concatenate([np.full(window + lag, loads[0] if len(loads) else 0.0), loads])
    return sliding_window_view(padded[: len(loads) + window], window + 1).max(axis=1) if len(loads) else loads


def cost_and_factor(seen: ndarray, capacity: ndarray, grain: ndarray | float) -> tuple[float, float]:
    """(mean capacity after it was multiplied by what leaves one violation in a hundred steps, that factor)."""
    import numpy as np

    factor = float(np.quantile((seen + grain) / (capacity + grain), 1.0 - VIOLATIONS))
    return factor * float(np.mean(capacity + grain)), factor
