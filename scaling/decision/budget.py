"""The budget limits: what may still be started, given what runs now and what was spent today. Pure.

The limits count the nodes there are, starting and draining ones included, never what was once decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from scaling.domain.config import ScalingConfig
from scaling.domain.model import DRAINING, Node
from scaling.domain.units import DAY_S, HOUR_S, USD_EPSILON


def running_usd_h(nodes: Iterable[Node]) -> float:
    """Price per hour of these nodes, in whatever state."""
    return sum(node.price_usd_h for node in nodes)


def room_usd_h(running: float, spent_today_usd: float, config: ScalingConfig, now: float) -> tuple[float, str]:
    """(dollars per hour that may be added, the limit this comes from); negative: this much must be drained.

    The daily limit: what is spent, plus everything that runs for another `commit_s` (to the end of the day at most),
    stays within the day's budget.
    """
    hour = config.budget_usd_h - running
    left_h = min(max(config.commit_s, 1.0), DAY_S - now % DAY_S) / HOUR_S
    day = (config.budget_usd_day - spent_today_usd) / left_h - running
    if day < hour:
        return day, f"{spent_today_usd:.2f} $ of the day's {config.budget_usd_day:g} $ are spent"
    if hour == inf:
        return inf, f"{running:.4f} $/h are running, no budget is set"
    return hour, f"{running:.4f} $/h of {config.budget_usd_h:g} $/h are running"


def nodes_over_budget(nodes: Iterable[Node], excess_usd_h: float) -> tuple[str, ...]:
    """Ids of the paid nodes to drain so that `excess_usd_h` less runs: idle ones first, then the dearest.

    Nodes that drain already count towards the excess.
    """
    paid = [node for node in nodes if node.price_usd_h > 0 and node.managed]
    excess_usd_h -= sum(node.price_usd_h for node in paid if node.state == DRAINING)
    staying = [node for node in paid if node.state != DRAINING]
    chosen: list[str] = []
    for node in sorted(staying, key=lambda node: (node.running > 0, -node.price_usd_h, node.id)):
        if excess_usd_h <= USD_EPSILON:
            break
        chosen.append(node.id)
        excess_usd_h -= node.price_usd_h
    return tuple(chosen)
