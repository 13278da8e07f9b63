"""Machines whose clocks are hours off: what is accepted anywhere is done in its time, wherever it runs."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mesh import node_api
from tests.nodes import Cluster, NodeProcess

HOUR_S = 3600.0
#: What takes milliseconds takes at most this on a busy machine, seconds; with a wrong clock it takes an hour, or fails.
SOON_S = 30.0


def with_clock(cluster: Cluster, off_s: float) -> NodeProcess:
    """A node whose clock is off by that much, not started yet."""
    node = cluster.node()
    node.command = (sys.executable, "-m", "tests.shifted_clock", str(off_s))
    return node


@pytest.fixture
async def cluster(tmp_path: Path):
    """The host of the bus has the right time, one node is an hour fast, one an hour slow."""
    async with Cluster(tmp_path) as made:
        await made.node().start()
        await asyncio.gather(with_clock(made, HOUR_S).start(), with_clock(made, -HOUR_S).start())
        yield made
        made.print_logs()


async def state_after(node: NodeProcess, body: dict[str, object]) -> tuple[str, float]:
    """(the final state of a task submitted to that node's API, seconds until it was reached)"""
    began = time.monotonic()
    accepted = await node_api.call(node.api, "POST", "/workload/submit", {"workload_type": "echo", **body})
    while True:
        document = await node_api.call(node.api, "GET", f"/workload/{accepted['id']}/status")
        took_s = time.monotonic() - began
        if document["state"] in ("done", "failed", "expired", "cancelled") or took_s > SOON_S:
            return document["state"], took_s
        await asyncio.sleep(0.05)


async def test_an_hour_between_two_clocks_changes_no_expiry_and_no_delay(cluster: Cluster) -> None:
    """An hour fast, a task with `expires_s: 600` expired 13 ms after it was accepted, `delay_s: 5` waited an hour."""
    cases: list[tuple[NodeProcess, dict[str, Any]]] = []
    for accepts in cluster.nodes:
        for runs in cluster.nodes:
            requires = {"node": runs.id}
            cases.append((accepts, {"payload": {"value": 1}, "expires_s": 600, "requires": requires}))
        cases.append((accepts, {"payload": {"value": 2}, "delay_s": 1.0, "expires_s": 600}))
    found = await asyncio.gather(*(state_after(accepts, body) for accepts, body in cases))
    for (accepts, body), (state, took_s) in zip(cases, found, strict=True):
        assert (state, took_s < SOON_S) == ("done", True), (accepts.name, body, took_s)
        assert took_s >= body.get("delay_s", 0.0)


async def test_a_key_claimed_on_a_fast_clock_stands_for_one_task_on_a_slow_one(cluster: Cluster) -> None:
    body = {"workload_type": "echo", "payload": {"value": 1}, "idempotency_key": "order 7", "delay_s": 600}
    first = [await node_api.call(node.api, "POST", "/workload/submit", body) for node in cluster.nodes]
    assert len({accepted["id"] for accepted in first}) == 1
