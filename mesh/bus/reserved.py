"""Names that nats-server gives a meaning: headers of stored messages, and the subjects of keys and blobs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
TTL = "Nats-TTL"
SCHEDULE, SCHEDULE_TARGET = "Nats-Schedule", "Nats-Schedule-Target"
#: The stream stores the message only when it has none on the subject.
ONLY_FIRST = {EXPECTED_LAST: "0"}
#: The message replaces all earlier ones on its subject.
ROLLUP = {"Nats-Rollup": "sub"}
#: Headers of a marker, which the server stores in place of a key that was deleted, purged or expired.
MARKERS = ("KV-Operation", "Nats-Marker-Reason")
#: Headers of the reply to a direct read: about the message, and how many more the batch has.
SEQUENCE, TIMESTAMP, SUBJECT, PENDING = "Nats-Sequence", "Nats-Time-Stamp", "Nats-Subject", "Nats-Num-Pending"


def with_message_id(message_id: str) -> bytes:
    """The headers of a message that has only its id, encoded: small tasks are published thousands of times a second."""
    return f"NATS/1.0\r\n{MESSAGE_ID}: {message_id}\r\n\r\n".encode()


def lifetime(ttl_s: float) -> dict[str, str]:
    """The header that removes a message after `ttl_s` seconds, rounded; one second at least."""
    return {TTL: f"{max(1, round(ttl_s))}s"}


def lifetime_s(headers: Mapping[str, str]) -> float:
    """The lifetime with which a message was stored, seconds; 0: without limit."""
    text = headers.get(TTL, "")
    return float(text[:-1]) if text.endswith("s") and text[:-1].isdigit() else 0.0


def scheduled(at: float, target: str) -> dict[str, str]:
    """The headers of a message that the server publishes on `target` at `at`, Unix seconds by its own clock."""
    return {SCHEDULE: at_schedule(at), SCHEDULE_TARGET: target}


def at_schedule(at: float) -> str:
    """The schedule for the moment `at`, Unix seconds by the server's clock."""
    return f"@at {datetime.fromtimestamp(at, UTC).isoformat().replace('+00:00', 'Z')}"


def moment_of(schedule: str) -> str:
    """The moment of a schedule, RFC 3339; "" for one that is no single moment."""
    at = re.fullmatch(r"@at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)", schedule)
    return at[1] if at else ""


def key_subject(bucket: str, key: str) -> str:
    """The subject of a key of a KV bucket; `>` stands for every key."""
    return f"$KV.{bucket}.{key}"


def chunk_subject(bucket: str, upload: str) -> str:
    """The one subject of all chunks of an upload to an object store; `>` stands for every upload."""
    return f"$O.{bucket}.C.{upload}"


def metadata_subject(bucket: str, name: str) -> str:
    """The subject of the metadata of an object, whose name is encoded; `>` stands for every object."""
    return f"$O.{bucket}.M.{name}"
