"""What JetStream answers, as types: stored messages, streams, consumers, ack subjects, the ends of pulls.

The server's JSON, base64 and dotted ack subjects are decoded here and nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from mesh.bus import reserved
from mesh.bus.wire import Message, parse_headers


class StoredMessage(NamedTuple):
    """A message as its stream holds it."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int
    timestamp: str
    """When it was stored, by the server's clock: RFC 3339 with nanoseconds."""

    @property
    def stored_at(self) -> float:
        """`timestamp` as Unix seconds."""
        return unix_seconds(self.timestamp)

    @property
    def is_marker(self) -> bool:
        """Whether it only says that its key is gone (deleted, purged or expired)."""
        return any(name in self.headers for name in reserved.MARKERS)


def stored_message(document: Mapping[str, Any]) -> StoredMessage:
    """The `message` object of the API's reply to a read."""
    headers = parse_headers(base64.b64decode(document["hdrs"])) if document.get("hdrs") else {}
    return StoredMessage(
        subject=str(document["subject"]),
        data=base64.b64decode(document.get("data") or ""),
        headers=headers,
        sequence=int(document["seq"]),
        timestamp=str(document.get("time", "")),
    )


def direct_message(message: Message) -> StoredMessage:
    """A message that a copy of the stream sent in reply to a direct read."""
    headers = message.headers
    sequence, timestamp = int(headers[reserved.SEQUENCE]), headers.get(reserved.TIMESTAMP, "")
    return StoredMessage(headers[reserved.SUBJECT], message.data, headers, sequence, timestamp)


def unix_seconds(timestamp: str) -> float:
    """RFC 3339 with nanoseconds, which Python's parser does not take, as Unix seconds."""
    head, _, rest = timestamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{(rest or '0')[:6]:0<6}+00:00").timestamp()


class Replica(NamedTuple):
    """A follower's copy of a stream, as the stream's leader sees it."""

    server: str
    current: bool
    offline: bool
    silent_ns: int
    """Time since the leader last heard from it, nanoseconds."""


class StreamInfo(NamedTuple):
    """One stream, as its leader describes it."""

    name: str
    config: Mapping[str, Any]
    messages: int
    size_bytes: int
    first_sequence: int
    last_sequence: int
    subjects: Mapping[str, int]
    """Subject -> messages on it, when a subject filter was given."""
    leader: str
    """The server that leads it; "" while none does."""
    replicas: tuple[Replica, ...]
    created: str
    server_time: str
    """The server's clock when it replied. Both are RFC 3339; "" when the server does not say."""

    @property
    def now(self) -> float:
        """The server's clock when it replied, Unix seconds."""
        return unix_seconds(self.server_time)

    @property
    def age_s(self) -> float:
        """Age of the stream by its server's clock, seconds; 0 when the server does not say."""
        if not self.created or not self.server_time:
            return 0.0
        return max(0.0, unix_seconds(self.server_time) - unix_seconds(self.created))


def stream_info(document: Mapping[str, Any]) -> StreamInfo:
    """The API's description of a stream."""
    state, cluster = document.get("state") or {}, document.get("cluster") or {}
    return StreamInfo(
        name=str(document["config"]["name"]),
        config=document["config"],
        messages=int(state.get("messages", 0)),
        size_bytes=int(state.get("bytes", 0)),
        first_sequence=int(state.get("first_seq", 0)),
        last_sequence=int(state.get("last_seq", 0)),
        subjects=state.get("subjects") or {},
        leader=str(cluster.get("leader") or ""),
        replicas=tuple(_replica(copy) for copy in cluster.get("replicas") or ()),
        created=str(document.get("created") or ""),
        server_time=str(document.get("ts") or ""),
    )


def _replica(copy: Mapping[str, Any]) -> Replica:
    silent_ns = int(copy.get("active") or 0)
    return Replica(str(copy["name"]), bool(copy.get("current")), bool(copy.get("offline")), silent_ns)


class StreamList(NamedTuple):
    """All streams of an account."""

    streams: list[StreamInfo]
    silent: list[str]
    """Names of the streams whose copies did not answer in time."""


class ConsumerInfo(NamedTuple):
    """Counters of one consumer."""

    name: str
    pending: int
    """Messages that wait for delivery."""
    ack_pending: int
    """Messages delivered and not acknowledged."""
    delivered: int
    """Deliveries so far."""
    settled_to: int = 0
    """Stream sequence up to which every message of its filter is acknowledged."""
    delivered_to: int = 0
    """Stream sequence of the last message that was delivered."""


class ConsumerList(NamedTuple):
    """All consumers of a stream."""

    consumers: list[ConsumerInfo]
    silent: list[str]
    """Names of the consumers whose copies did not answer in time."""


def consumer_info(document: Mapping[str, Any]) -> ConsumerInfo:
    """The API's description of a consumer."""
    delivered, settled = document.get("delivered") or {}, document.get("ack_floor") or {}
    return ConsumerInfo(
        str(document["name"]), int(document["num_pending"]), int(document["num_ack_pending"]),
        int(delivered.get("consumer_seq", 0)), int(settled.get("stream_seq", 0)), int(delivered.get("stream_seq", 0)),
    )  # fmt: skip


def parse_ack_subject(reply: str) -> tuple[int, int, int]:
    """(delivery count, stream sequence, messages still pending) of a delivery, from its ack subject:

    `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>[.<any>]`
    """
    parts = reply.split(".")
    if len(parts) >= 11:
        parts = parts[2:]
    return int(parts[4]), int(parts[5]), int(parts[8])


def stored_at_of_ack(reply: str) -> float:
    """When the delivered message was stored, by the server's clock: Unix seconds, from the ack subject."""
    parts = reply.split(".")
    return int(parts[9 if len(parts) >= 11 else 7]) / 1e9


def consumer_of_ack(reply: str) -> str:
    """The consumer that made a delivery, from its ack subject; "" when `reply` is none."""
    parts = reply.split(".")
    at = 5 if len(parts) >= 11 else 3
    return parts[at] if len(parts) > at else ""


class PullEnd(Enum):
    """Why the server ended a pull."""

    EXPIRED = "no message within its time, or none at all"
    NO_CONSUMER = "the consumer is gone, or has no leader"
    REFUSED = "a limit was exceeded, or the server is leaving"


def pull_end(message: Message) -> PullEnd:
    """Why a pull ended, from the status message in its inbox (the one that has no reply subject)."""
    status = message.headers.get("Status", "")
    if status in ("404", "408"):
        return PullEnd.EXPIRED
    if status == "503" or (status == "409" and "Deleted" in message.headers.get("Description", "")):
        return PullEnd.NO_CONSUMER
    return PullEnd.REFUSED
