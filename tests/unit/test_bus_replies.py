"""Decoding of JetStream replies: stored messages, streams, ack subjects, the ends of pulls."""

from __future__ import annotations

import base64

import pytest

from mesh.bus.replies import (
    PullEnd,
    consumer_info,
    consumer_of_ack,
    direct_message,
    pull_end,
    stored_message,
    stream_info,
)
from mesh.bus.wire import Message

HEADERS = b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"


def test_a_stored_message_is_the_same_by_either_way_of_reading() -> None:
    time = "2026-11-29T20:00:00.123456789Z"
    document = {
        "subject": "a.b", "seq": 7, "time": time,
        "data": base64.b64encode(b"x").decode(), "hdrs": base64.b64encode(HEADERS).decode(),
    }  # fmt: skip
    by_api = stored_message(document)
    assert (by_api.subject, by_api.data, by_api.sequence, by_api.is_marker) == ("a.b", b"x", 7, True)
    assert by_api.stored_at == pytest.approx(1795982400.123456, abs=1e-6)
    raw = f"NATS/1.0\r\nNats-Subject: a.b\r\nNats-Sequence: 7\r\nNats-Time-Stamp: {time}\r\nKV-Operation: DEL\r\n\r\n"
    direct = direct_message(Message("_INBOX.x", "", b"x", raw.encode()))
    assert direct._replace(headers={}) == by_api._replace(headers={}) and direct.is_marker
    empty = stored_message({"subject": "a", "seq": 1, "time": "2026-11-29T20:00:00Z"})
    assert (empty.data, empty.headers, empty.is_marker, empty.stored_at) == (b"", {}, False, 1795982400.0)


def test_a_stream_without_leader_or_state_is_described_all_the_same() -> None:
    info = stream_info({"config": {"name": "WORK"}})
    assert (info.name, info.messages, info.leader, info.replicas, info.subjects) == ("WORK", 0, "", (), {})
    assert info.age_s == 0.0
    times = {"created": "2026-11-29T20:00:00Z", "ts": "2026-11-29T20:01:30.5Z"}
    assert stream_info({"config": {"name": "WORK"}} | times).age_s == 90.5


def test_counters_of_a_consumer() -> None:
    document = {"name": "x", "num_pending": 3, "num_ack_pending": 2}
    document |= {"delivered": {"consumer_seq": 9, "stream_seq": 7}, "ack_floor": {"stream_seq": 5}}
    assert consumer_info(document) == ("x", 3, 2, 9, 5, 7)
    assert consumer_info({"name": "x", "num_pending": 0, "num_ack_pending": 0}).delivered == 0


def test_the_consumer_behind_an_ack_subject() -> None:
    tail = "WORK.echo~any~normal.1.2.3.4.5"
    assert consumer_of_ack(f"$JS.ACK.{tail}") == "echo~any~normal"
    assert consumer_of_ack(f"$JS.ACK.hub.HASH.{tail}") == "echo~any~normal"
    assert consumer_of_ack("a.b") == ""


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("404 No Messages", PullEnd.EXPIRED),
        ("408 Request Timeout", PullEnd.EXPIRED),
        ("409 Consumer Deleted", PullEnd.NO_CONSUMER),
        ("503", PullEnd.NO_CONSUMER),
        ("409 Message Size Exceeds MaxBytes", PullEnd.REFUSED),
    ],
)
def test_why_a_pull_ended(status: str, end: PullEnd) -> None:
    assert pull_end(Message("_INBOX.x", "", b"", f"NATS/1.0 {status}\r\n\r\n".encode())) is end
