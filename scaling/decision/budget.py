"""The wall in front of the bill: what may still be started, by what runs now and what was spent today. Pure.

It counts what is there, starting and draining nodes included, never what was once decided.
"""

from __future__ import annotations

from collections.abc import Iterable

from scaling.domain.config import ScalingConfig
from scaling.domain.model import Node
from scaling.domain.units import DAY_S, HOUR_S, USD_EPSILON


def running_usd_h(nodes: Iterable[Node]) -> float:
    """What these nodes cost an hour while they are there, in whatever state."""
    return sum(node.price_usd_h for node in nodes)


def room_usd_h(running: float, spent_today_usd: float, config: ScalingConfig, now: float) -> tuple[float, str]:
    """(dollars an hour that may be added, which wall it is); below zero: so much must go.

    The day's wall: what is spent, and everything that runs for another `commit_s` (to the end of the day at most),
    stays within the day's budget.
    """
    hour = config.budget_usd_h - running
    left_h = min(max(config.commit_s, 1.0), DAY_S - now % DAY_S) / HOUR_S
    day = (config.budget_usd_day - spent_today_usd) / left_h - running
    if day < hour:
        return day, f"{spent_today_usd:.2f} $ of {config.budget_usd_day:g} $ of the day are spent"
    return hour, f"{running:.4f} $/h of {config.budget_usd_h:g} $/h are running"


def over_the_wall(nodes: Iterable[Node], over_usd_h: float) -> tuple[str, ...]:
    """Ids of the paid nodes to drain so that `over_usd_h` less will run: idle ones first, then the dearest."""
    chosen = []
    paid = [node for node in nodes if node.price_usd_h > 0 and node.managed]
    going = sum(node.price_usd_h for node in paid if node.state == "draining")
    over_usd_h -= going
    staying = [node for node in paid if node.state != "draining"]
    for node in sorted(staying, key=lambda one: (one.running > 0, -one.price_usd_h, one.id)):
        if over_usd_h <= USD_EPSILON:
            break
        chosen.append(node.id)
        over_usd_h -= node.price_usd_h
    return tuple(chosen)
