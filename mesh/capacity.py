"""What the scaler and the nodes it started must agree on: how such a node is known, and how it is told to go."""

from __future__ import annotations

import msgspec

#: The label of a node that the scaler started: the token of its order.
TOKEN_LABEL = "started-as"


class LeaveOrder(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.leave`: take nothing more, finish what runs, and go. Only nodes that the scaler started obey."""

    token: str
    """Of the order the node came from: an order for another life of that node is not for this one."""
    fence: int
    reason: str = ""


def token_of(started_as: str) -> str:
    """The token in MESH.OFFER.TOKEN.EXPIRES, "" when there is none."""
    parts = started_as.split(".")
    return parts[2] if len(parts) == 4 else ""


decode_leave = msgspec.msgpack.Decoder(LeaveOrder).decode
