"""Constants and roundings that every layer shares: durations, and tolerances for nodes and dollars. Pure."""

from __future__ import annotations

from math import ceil

HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 7 * 86400.0
#: Differences below this are float noise, in nodes: 3.0000000001 nodes are three.
NODE_EPSILON = 1e-9
#: Budgets are compared with this tolerance, dollars per hour: sums of prices are floats.
USD_EPSILON = 1e-9


def counted(count: int, what: str) -> str:
    """1, "node" -> "1 node"; 2, "node" -> "2 nodes" """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def whole_nodes(nodes: float) -> int:
    """`nodes` rounded up to whole nodes; an infinite need becomes a billion."""
    return ceil(min(nodes, 1e9) - NODE_EPSILON)
