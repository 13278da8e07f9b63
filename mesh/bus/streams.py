"""Declares the mesh's streams, buckets and lane consumers. Everything here is idempotent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from mesh import subjects
from mesh.bus import reserved
from mesh.bus.errors import STREAM_NAME_IN_USE, ApiError
from mesh.bus.jetstream import JetStream
from mesh.bus.replies import ConsumerInfo
from mesh.config import MIB, MeshConfig
from mesh.errors import BusUnavailable
from mesh.lanes import Lane

#: Streams are placed on voters only: a stream with one copy could land on a boot peer, and be removed with it.
VOTER = {"tags": ["voter"]}
#: The priority group of every consumer; pulls name it.
GROUP = "all"
#: How long a step of a submission waits for the bus, seconds. An election takes 4 to 9 s. For ten seconds nats-server
#: confirms no message and takes no new consumer (10023) of a work queue that grows from one copy to three, and the
#: consumers elect for about one more.
SUBMIT_WITHIN_S = 20.0
#: Outcomes kept of each benchmark, per node.
BENCH_HISTORY = 16
_NS = 1_000_000_000


def fit_to_disk(config: MeshConfig, free_bytes: int) -> tuple[MeshConfig, int]:
    """(`config` with the limits that this much free disk allows, the size limit of each of the two blob stores, bytes).

    A full queue refuses new work and loses nothing; a full disk stops the bus.
    """
    fitted = replace(
        config,
        work_max_bytes=min(config.work_max_bytes, free_bytes // 4),
        tasks_max_bytes=min(config.tasks_max_bytes, free_bytes // 8),
    )
    return fitted, int(free_bytes * config.blobs_disk_share / 2)


def stream_configs(config: MeshConfig, blobs_max_bytes: int) -> list[dict[str, Any]]:
    """The configurations of all streams of the mesh, buckets and object stores included, for the server's API."""
    base = {"storage": "file", "num_replicas": 1, "placement": VOTER, "max_consumers": -1, "max_msgs": -1}
    return [*_task_streams(base, config), *_history_streams(base, config), *_buckets(base, config, blobs_max_bytes)]


def _task_streams(base: dict[str, Any], config: MeshConfig) -> list[dict[str, Any]]:
    return [
        base
        | {
            "name": subjects.WORK,
            "subjects": list(subjects.WORK_SUBJECTS),
            "retention": "workqueue",
            "discard": "new",
            "max_bytes": config.work_max_bytes,
            "duplicate_window": int(config.duplicate_window_s * _NS),
            "allow_direct": True,
        },
        # A stream with schedules can't refuse new messages when it is full (10052), and a schedule's target must be in
        # the same stream. So delayed work has a stream of its own, and any node moves what is due to its lane.
        base
        | {
            "name": subjects.LATER,
            "subjects": list(subjects.LATER_SUBJECTS),
            "retention": "workqueue",
            "discard": "old",
            "max_bytes": -1,
            "duplicate_window": int(config.duplicate_window_s * _NS),
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        },
        base
        | {
            "name": subjects.TASKS,
            "subjects": list(subjects.TASKS_SUBJECTS),
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "max_bytes": config.tasks_max_bytes,
            "max_age": (config.result_ttl_s + 24 * 3600) * _NS,
            "allow_msg_ttl": True,
            "allow_direct": True,
            "duplicate_window": _NS,
            "republish": {"src": subjects.TASKS_REPUBLISH[0], "dest": subjects.TASKS_REPUBLISH[1]},
        },
    ]


def _history_streams(base: dict[str, Any], config: MeshConfig) -> list[dict[str, Any]]:
    return [
        base
        | {
            "name": subjects.EVENTS,
            "subjects": list(subjects.EVENTS_SUBJECTS),
            "discard": "old",
            "max_bytes": config.events_max_bytes,
            "allow_direct": True,
        },
        base
        | {
            "name": subjects.DEAD,
            "subjects": list(subjects.DEAD_SUBJECTS),
            "discard": "old",
            "max_msgs_per_subject": 1,
            "max_bytes": config.dead_max_bytes,
            "max_age": config.dead_ttl_s * _NS,
            "allow_direct": True,
        },
        base
        | {
            "name": subjects.METRICS,
            "subjects": list(subjects.METRICS_SUBJECTS),
            "discard": "old",
            "max_bytes": config.metrics_max_bytes,
            "max_age": config.metrics_ttl_s * _NS,
            "allow_direct": True,
        },
    ]


def _buckets(base: dict[str, Any], config: MeshConfig, blobs_max_bytes: int) -> list[dict[str, Any]]:
    return [
        _bucket(base, subjects.KV_NODES),
        _bucket(base, subjects.KV_LEASE, max_age_s=config.lease_ttl_s * 6),
        _bucket(base, subjects.KV_POOLS),
        _bucket(base, subjects.KV_PLAN),
        _bucket(base, subjects.KV_CLAIMS, max_age_s=config.claim_ttl_s),
        _bucket(base, subjects.KV_BLOB_REFS, max_age_s=config.blob_ttl_s),
        _bucket(base, subjects.KV_CHECKPOINTS, max_age_s=config.blob_ttl_s),
        _bucket(base, subjects.KV_MESH),
        _bucket(base, subjects.KV_BENCH) | {"max_msgs_per_subject": BENCH_HISTORY},
        _bucket(base, subjects.KV_SCALING),
        _object_store(base, subjects.BLOBS, blobs_max_bytes, max_age_s=config.blob_ttl_s),
        _object_store(base, subjects.BLOBS_KEPT, blobs_max_bytes),
    ]


def _bucket(base: dict[str, Any], name: str, max_age_s: float = 0) -> dict[str, Any]:
    return base | {
        "name": f"KV_{name}",
        "subjects": [reserved.key_subject(name, ">")],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "max_bytes": 64 * MIB,
        "max_age": int(max_age_s * _NS),
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
    }


def _object_store(base: dict[str, Any], name: str, max_bytes: int, max_age_s: float = 0) -> dict[str, Any]:
    return base | {
        "name": f"OBJ_{name}",
        "subjects": [reserved.chunk_subject(name, ">"), reserved.metadata_subject(name, ">")],
        "discard": "new",
        "max_bytes": max_bytes,
        "max_age": int(max_age_s * _NS),
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }


async def declare_streams(jetstream: JetStream, config: MeshConfig, free_bytes: int) -> None:
    """Create the streams that are missing, on a disk with `free_bytes` free.

    Existing ones stay as they are: an operator may have set their limits. Raises: ApiError, BusUnavailable.
    """
    fitted, blobs_max_bytes = fit_to_disk(config, free_bytes)

    async def declare(stream: dict[str, Any]) -> None:
        try:
            await jetstream.create_stream(stream)
        except ApiError as error:
            if error.error_code != STREAM_NAME_IN_USE:
                raise

    await asyncio.gather(*(declare(stream) for stream in stream_configs(fitted, blobs_max_bytes)))
    await jetstream.create_consumer(subjects.WORK, ingress_config(config))
    await jetstream.create_consumer(subjects.LATER, due_config(config))


def lane_config(kind: str, pool: str, urgency: str, config: MeshConfig) -> dict[str, Any]:
    """A lane's durable pull consumer. Whether it has a priority group can't be changed later.

    No `inactive_threshold`: the server would remove a lane that still holds work that no node can do yet. The leader
    removes lanes that stayed empty; a submitter declares its lane again with the first task after a quiet time.
    """
    return {
        "durable_name": subjects.lane_durable(kind, pool, urgency),
        "name": subjects.lane_durable(kind, pool, urgency),
        "filter_subject": subjects.lane_filter(kind, pool, urgency),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(config.ack_wait_s * _NS),
        "max_deliver": -1,
        "max_ack_pending": 20_000,
        "max_waiting": 20_000,
        "priority_groups": [GROUP],
        "priority_policy": "prioritized",
    }


def ingress_config(config: MeshConfig) -> dict[str, Any]:
    """The one consumer of `work.*`: any node takes an ingress message and puts it into its lane."""
    return {
        "durable_name": subjects.INGRESS_DURABLE,
        "name": subjects.INGRESS_DURABLE,
        "filter_subject": subjects.WORK_SUBJECTS[0],
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(config.ack_wait_s * _NS),
        "max_deliver": -1,
        "max_ack_pending": 20_000,
        "max_waiting": 20_000,
        "priority_groups": [GROUP],
        "priority_policy": "prioritized",
    }


def due_config(config: MeshConfig) -> dict[str, Any]:
    """The one consumer of `later.due.*`: any node moves delayed work that is due to its lane."""
    return ingress_config(config) | {
        "durable_name": subjects.DUE_DURABLE,
        "name": subjects.DUE_DURABLE,
        "filter_subject": subjects.LATER_SUBJECTS[1],
    }


def durable_config(name: str, config: MeshConfig) -> dict[str, Any] | None:
    """The configuration of the mesh's durable consumer `name`; None when it has none of that name."""
    if name == subjects.INGRESS_DURABLE:
        return ingress_config(config)
    if name == subjects.DUE_DURABLE:
        return due_config(config)
    lane = subjects.split_durable(name)
    return lane_config(*lane, config) if lane else None


async def declare_lane(jetstream: JetStream, kind: str, pool: str, urgency: str) -> None:
    """Create a lane's consumer (idempotent, 1 ms on an idle bus). Raises: ApiError, BusUnavailable."""
    config = lane_config(kind, pool, urgency, jetstream.config)
    await jetstream.create_consumer(subjects.WORK, config, SUBMIT_WITHIN_S)


class LaneInfo(NamedTuple):
    """Counters of one lane."""

    waiting: int
    unacknowledged: int
    """Delivered and not acknowledged."""
    delivered: int
    """Deliveries so far: constant while the lane is idle."""


async def list_lanes(jetstream: JetStream, timeout_s: float = 5.0) -> dict[Lane, LaneInfo]:
    """Every lane that answers. Raises: BusUnavailable, ApiError."""
    listed = await jetstream.list_consumers(subjects.WORK, timeout_s)
    return _lanes(listed.consumers)


async def count_waiting(jetstream: JetStream) -> int | None:
    """Tasks that wait in all lanes; None when a lane does not answer. Raises: BusUnavailable, ApiError."""
    listed = await jetstream.list_consumers(subjects.WORK)
    if any(subjects.split_durable(name) for name in listed.silent):
        return None
    return sum(lane.waiting for lane in _lanes(listed.consumers).values())


async def list_every_lane(jetstream: JetStream) -> dict[Lane, LaneInfo]:
    """Every lane, for figures that a missing one would falsify.

    Raises: BusUnavailable, also when only one of the lanes does not answer; ApiError.
    """
    listed = await jetstream.list_consumers(subjects.WORK)
    silent = [name for name in listed.silent if subjects.split_durable(name)]
    if silent:
        raise BusUnavailable(f"{len(silent)} lanes did not answer, {silent[0]} among them; try again shortly")
    return _lanes(listed.consumers)


def _lanes(consumers: Iterable[ConsumerInfo]) -> dict[Lane, LaneInfo]:
    lanes: dict[Lane, LaneInfo] = {}
    for consumer in consumers:
        lane = subjects.split_durable(consumer.name)
        if lane is not None:
            lanes[lane] = LaneInfo(consumer.pending, consumer.ack_pending, consumer.delivered)
    return lanes


class StreamUsage(NamedTuple):
    """How full one stream is."""

    stream: str
    size_bytes: int
    max_bytes: int
    """0 or less: no limit."""


async def list_usage(jetstream: JetStream) -> list[StreamUsage]:
    """The usage of every stream that answers. Raises: BusUnavailable, ApiError."""
    return [
        StreamUsage(info.name, info.size_bytes, int(info.config.get("max_bytes") or 0))
        for info in (await jetstream.list_streams()).streams
    ]


async def remove_lane(jetstream: JetStream, kind: str, pool: str, urgency: str) -> None:
    """Remove an empty lane's consumer; one that is gone is no error. Raises: BusUnavailable, ApiError."""
    await jetstream.delete_consumer(subjects.WORK, subjects.lane_durable(kind, pool, urgency))
