"""The launch guard: the last check before a node is started, whatever was decided. Money, bounds, key, panic. Pure."""

from __future__ import annotations

from collections.abc import Collection

from scaling.decision import budget
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Node, Offer
from scaling.domain.units import USD_EPSILON, counted

NO_KEY = "a mesh without a key spends no money: only unpaid providers may start nodes"
PANIC = "everything paid is stopped by a panic that has not been undone"


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

    `nodes`: all nodes of the mesh, starting and leaving ones included; `paid`: whether its provider takes money.
    """
    if paid and (why := paid_refusal(has_key, panic)):
        return why
    if len(nodes) >= config.max_nodes:
        return f"the mesh has {counted(len(nodes), 'node')}, max_nodes is {config.max_nodes}"
    running = budget.running_usd_h(nodes)
    room, limit = budget.room_usd_h(running, spent_today_usd, config, now)
    if offer.price_usd_h > room + USD_EPSILON:
        return f"it costs {offer.price_usd_h:.4f} $/h, the budget leaves {max(0.0, room):.4f} $/h: {limit}"
    return ""


def paid_refusal(has_key: bool, panic: bool) -> str:
    """Why no node that costs money may be started now; "" when it may."""
    if not has_key:
        return NO_KEY
    return PANIC if panic else ""
