"""What is looked at again right before a node is started, whatever was decided: money, bounds, the key, panic. Pure."""

from __future__ import annotations

from collections.abc import Collection

from scaling.config import ScalingConfig
from scaling.decision import budget
from scaling.model import Node, Offer

#: Rule five of the mesh, in words.
NO_KEY = "a mesh without a key never spends money; only unpaid providers start nodes here"
PANIC = "everything paid was stopped by hand, and has not been allowed again"
#: Budgets are compared with this much slack, dollars an hour.
CENT = 1e-9


def refusal(
    offer: Offer,
    paid: bool,
    nodes: Collection[Node],
    spent_today_usd: float,
    has_key: bool,
    panic: bool,
    config: ScalingConfig,
    now: float,
) -> str:
    """Why a node of `offer` may not be started now; "" when it may.

    `nodes`: all there are in the mesh, those on their way and those leaving included; `paid`: whether its provider
    takes money.
    """
    if paid and not has_key:
        return NO_KEY
    if paid and panic:
        return PANIC
    if len(nodes) >= config.max_nodes:
        return f"there are {len(nodes)} nodes of at most {config.max_nodes}"
    running = budget.running_usd_h(nodes)
    room, wall = budget.room_usd_h(running, spent_today_usd, config, now)
    if offer.price_usd_h > room + CENT:
        return f"it costs {offer.price_usd_h:.4f} $/h and the budget leaves {max(0.0, room):.4f} $/h: {wall}"
    return ""
