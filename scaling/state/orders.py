"""Orders: an intent is stored before the provider is called and kept until the node is gone.

So no change of leader starts a node twice or loses one. KV `scaling`, `intent.<token>`.
"""

from __future__ import annotations

import msgspec

from mesh.decoding import Decoder
from mesh.discovery.identity import new_token
from mesh.subjects import is_token
from scaling.domain.model import DRAINING, OWN, STARTING, Node, Offer

#: Stored, and the provider not called yet or its answer unknown; taken by the provider; joined the mesh; to be ended.
INTENDED, LAUNCHED, JOINED, ENDING = "intended", "launched", "joined", "ending"


class Intent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One node that was ordered. Times are Unix seconds of the leader that wrote them."""

    token: str
    provider: str
    offer: str
    pool: str
    place: str = ""
    """The provider's `place`: whose list shows it."""
    state: str = INTENDED
    at: float = 0.0
    """When it was ordered."""
    expires_at: float = 0.0
    fence: int = 0
    """Of the leader that ordered it."""
    instance: str = ""
    node: str = ""
    joined_at: float = 0.0
    ending_at: float = 0.0
    why: str = ""
    """Why it is to be ended."""
    price_usd_h: float = 0.0
    market: str = OWN
    region: str = ""
    has_gpu: bool = False


def new_intent(offer: Offer, pool: str, place: str, fence: int, expires_at: float, now: float) -> Intent:
    """An intent to start one node of `offer`, with a new token."""
    return Intent(
        token=new_token("x"), provider=offer.provider, offer=offer.id, pool=pool, place=place, at=now,
        expires_at=expires_at, fence=fence, price_usd_h=offer.price_usd_h, market=offer.market, region=offer.region,
        has_gpu=offer.has_gpu,
    )  # fmt: skip


def as_node(intent: Intent) -> Node:
    """The node of an intent that has not joined yet, or has left and is not known to be gone."""
    state = DRAINING if intent.state == ENDING else STARTING
    return Node(
        intent.token, intent.offer, state, intent.at, 0, intent.price_usd_h, intent.market, intent.region,
        intent.has_gpu,
    )  # fmt: skip


encode_intent = msgspec.msgpack.Encoder().encode
decode_intent: Decoder[Intent] = Decoder(
    Intent, "order of a node", lambda intent: "" if is_token(intent.token) else "its token can't be one"
)
