"""What the scaler and the nodes it starts agree on: how such a node is recognised, and the order to leave."""

from __future__ import annotations

import msgspec

#: Node label: the token of the order with which the scaler started the node.
TOKEN_LABEL = "started-as"


class LeaveOrder(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.leave`: take no more work, finish what runs, and leave. Only nodes that the scaler started obey."""

    token: str
    """The token of the order that started the node: an order with another token is for an earlier node of that id."""
    fence: int
    reason: str = ""


def token_of(started_as: str) -> str:
    """The token in MESH.OFFER.TOKEN.EXPIRES; "" when the text has another form."""
    parts = started_as.split(".")
    return parts[2] if len(parts) == 4 else ""
