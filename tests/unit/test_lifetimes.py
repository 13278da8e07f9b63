"""Everything the bus stores has a size or age limit from its setting; lanes are configured for rank and credit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh import subjects
from mesh.bus.streams import GROUP, due_config, ingress_config, lane_config, stream_configs
from mesh.config import LAN
from mesh.tasks.records import SMALL_BYTES, end_headers

NS = 1_000_000_000
#: Every number differs from every other, so that a mix-up shows.
CONFIG = replace(
    LAN, work_max_bytes=11, tasks_max_bytes=12, events_max_bytes=13, dead_max_bytes=14, metrics_max_bytes=15,
    result_ttl_s=101, small_result_ttl_s=102, blob_ttl_s=103, claim_ttl_s=104, dead_ttl_s=105, metrics_ttl_s=106,
    duplicate_window_s=107, ack_wait_s=108, lease_ttl_s=109,
)  # fmt: skip
STREAMS = {stream["name"]: stream for stream in stream_configs(CONFIG, blobs_max_bytes=16)}


@pytest.mark.parametrize(
    ("name", "max_bytes", "max_age_s", "discard"),
    [
        (subjects.WORK, 11, None, "new"),
        (subjects.TASKS, 12, 101 + 24 * 3600, "old"),
        (subjects.EVENTS, 13, None, "old"),
        (subjects.DEAD, 14, 105, "old"),
        (subjects.METRICS, 15, 106, "old"),
        (f"KV_{subjects.KV_CLAIMS}", None, 104, "new"),
        (f"KV_{subjects.KV_LEASE}", None, 109 * 6, "new"),
        (f"OBJ_{subjects.BLOBS}", 16, 103, "new"),
        (f"OBJ_{subjects.BLOBS_KEPT}", 16, 0, "new"),
    ],
)
def test_limits_and_lifetimes(name, max_bytes, max_age_s, discard) -> None:
    stream = STREAMS[name]
    assert max_bytes is None or stream["max_bytes"] == max_bytes
    assert stream.get("max_age", 0) == (max_age_s or 0) * NS
    assert stream["discard"] == discard, "a full queue refuses, a full history forgets"


def test_no_stream_is_placed_on_the_temporary_boot_peer() -> None:
    assert all(stream["placement"] == {"tags": ["voter"]} for stream in STREAMS.values())


def test_the_queue_has_two_subject_shapes_and_a_duplicate_window() -> None:
    work, tasks = STREAMS[subjects.WORK], STREAMS[subjects.TASKS]
    assert (work["subjects"], work["retention"]) == (["work.*", "work.*.*.*.*"], "workqueue")
    assert work["duplicate_window"] == 107 * NS
    assert tasks["max_msgs_per_subject"] == 1 and tasks["allow_msg_ttl"]


def test_an_end_is_written_once_and_the_ttl_depends_on_its_size() -> None:
    small, large = end_headers(SMALL_BYTES - 1, CONFIG), end_headers(SMALL_BYTES, CONFIG)
    assert (small["Nats-TTL"], large["Nats-TTL"]) == ("102s", "101s")
    assert small["Nats-Expected-Last-Subject-Sequence"] == large["Nats-Expected-Last-Subject-Sequence"] == "0"


@pytest.mark.parametrize(
    "consumer", [lane_config("echo", "any", "low", CONFIG), ingress_config(CONFIG), due_config(CONFIG)]
)
def test_consumers_serve_by_rank_and_are_not_the_limit_of_a_lane(consumer) -> None:
    assert (consumer["priority_groups"], consumer["priority_policy"]) == ([GROUP], "prioritized")
    assert consumer["max_ack_pending"] == consumer["max_waiting"] == 20_000
    assert (consumer["ack_wait"], consumer["ack_policy"]) == (108 * NS, "explicit")
    assert consumer["max_deliver"] == -1, "attempts are counted in the task's record; more would strand a message"
    assert "inactive_threshold" not in consumer and "backoff" not in consumer
