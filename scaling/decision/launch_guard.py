"""What is looked at again right before a node is started, whatever was decided: money, bounds, the key, panic. Pure."""

from __future__ import annotations

from collections.abc import Collection

from scaling.decision import budget
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Node, Offer
from scaling.domain.units import USD_EPSILON

#: Rule five of the mesh, in words.
NO_KEY = "a mesh without a key never spends money; only unpaid providers start nodes here"
PANIC = "everything paid was stopped by hand, and has not been allowed again"


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
    if paid and (why := paid_refusal(has_key, panic)):
        return why
    if len(nodes) >= config.max_nodes:
        return f"there are {len(nodes)} nodes of at most {config.max_nodes}"
    running = budget.running_usd_h(nodes)
    room, wall = budget.room_usd_h(running, spent_today_usd, config, now)
    if offer.price_usd_h > room + USD_EPSILON:
        return f"it costs {offer.price_usd_h:.4f} $/h and the budget leaves {max(0.0, room):.4f} $/h: {wall}"
    return ""


def paid_refusal(has_key: bool, panic: bool) -> str:
    """Why no offer that costs money may be started now; "" when they may."""
    if not has_key:
        return NO_KEY
    return PANIC if panic else ""
