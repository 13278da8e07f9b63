"""How many nodes the forecast needs: what to hold for the load at the moment a node started now is ready. Pure.

Up: only what is expected when a start can take effect. Down: never below what is expected until then, because a node
given up now is not back earlier. That the load has dropped as well is checked by reactive: the highest proposal wins.
"""

from __future__ import annotations

from scaling.domain.config import HYBRID, REACTIVE, ScalingConfig
from scaling.domain.model import Forecast, Proposal
from scaling.domain.units import counted, whole_nodes


def is_trusted(forecast: Forecast | None, config: ScalingConfig) -> bool:
    """Whether decisions use the forecast."""
    if forecast is None or config.mode == REACTIVE:
        return False
    return forecast.trusted or config.mode != HYBRID


def propose(forecast: Forecast, have: int, config: ScalingConfig) -> Proposal:
    """The nodes that the forecast load needs. `have`: nodes that are ready or starting."""
    room = 1.0 + config.forecast_headroom
    up = whole_nodes(max(0.0, forecast.at_start) * room)
    hold = max(up, whole_nodes(max(0.0, forecast.until_start) * room))
    nodes = max(up, min(have, hold))
    reason = (
        f"{forecast.model} expects a load of {forecast.median:.2f}, at most {forecast.at_start:.2f} with probability "
        f"{forecast.sure:.1%} ({forecast.until_start:.2f} until then): {counted(nodes, 'node')}"
    )
    return Proposal("predictive", nodes, reason)
