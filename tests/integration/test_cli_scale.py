"""`queztl scale`, `queztl cost` and `python -m scaling explain`, with a node that may start others."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.queztl_process import environment, queztl
from tests.nodes import ROOT, Cluster, NodeProcess, eventually
from tests.scaled import kill_started, started

pytestmark = pytest.mark.timeout(180)

QUICK = ("decide_every_s=0.5", "down_window_s=1", "min_life_s=0", "to_zero_after_s=1", "load_window_s=2")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    """A node that may start two more."""
    async with Cluster(tmp_path) as cluster:
        try:
            yield await cluster.node("--max-nodes", "3", slots=1).start()
        finally:
            kill_started(tmp_path)


async def test_capacity_from_the_command_line(node: NodeProcess, tmp_path: Path) -> None:
    ran = await queztl("scale", "status", url=node.api)
    assert ran.code == 0 and "1, on, by the flags of" in ran.out, ran
    ran = await queztl("scale", "policy", *QUICK, "baseline_nodes=default", "--json", url=node.api)
    assert ran.json["effective"]["decide_every_s"] == 0.5 and ran.json["settings"]["max_nodes"] == 3
    ran = await queztl("scale", "policy", "max_nodes=many", "moon=1", "--json", url=node.api)
    assert ran.code == 2 and {"max_nodes", "moon"} <= {fault["field"] for fault in ran.json["error"]["faults"]}, ran
    ran = await queztl("scale", "set", "50", url=node.api)
    assert ran.code == 2 and "max_nodes, 3" in ran.err

    ran = await queztl("scale", "set", "+1", "--for", "600", url=node.api)
    assert ran.code == 0 and ran.out == "1 node now, 2 for 10 min\n"

    async def ready(count: int) -> bool:
        document = (await queztl("scale", "status", "--json", url=node.api)).json
        return sum(pool["ready"] for pool in document["pools"]) == count

    await eventually(lambda: ready(2), 60, "the second node is ready")
    assert len(started(tmp_path)) == 1
    ran = await queztl("scale", "status", url=node.api)
    assert "2 nodes for another" in ran.out and "joined" in ran.out and "local" in ran.out
    assert (await queztl("scale", "set", "auto", url=node.api)).out == "the number of nodes follows the load again\n"
    await eventually(lambda: ready(1), 60, "the second node is gone")

    ran = await queztl("scale", "explain", "--list", "--limit", "200", "--json", url=node.api)
    launch = [
        decision["id"] for decision in ran.json["decisions"] if any(pool["launches"] for pool in decision["pools"])
    ]
    assert len(launch) == 1
    ran = await queztl("scale", "explain", launch[0], url=node.api)
    assert ran.code == 0 and "start 1 of local" in ran.out and "the decision is the same" in ran.out
    assert "1 -> 2" in (await queztl("scale", "explain", "--list", url=node.api)).out
    assert (await queztl("scale", "explain", "999999", url=node.api)).code == 4
    versions = await queztl("scale", "policy", "--versions", url=node.api)
    assert "flags" in versions.out and "hand" in versions.out

    whole = await queztl("scale", "explain", launch[0], "--json", url=node.api)
    journal, output = await scaling("explain", str(launch[0]), url=node.api)
    assert journal == 0 and output.splitlines() == whole.json["says"]
    (tmp_path / "decision.json").write_text(whole.out)
    assert (await scaling("explain", "--file", str(tmp_path / "decision.json"))) == (0, output)
    changed = whole.json
    changed["from"]["config"] |= {"min_nodes": 1, "max_nodes": 1}
    (tmp_path / "decision.json").write_text(json.dumps(changed))
    code, output = await scaling("explain", "--file", str(tmp_path / "decision.json"))
    assert code == 1 and "the decision differs" in output, output
    (tmp_path / "decision.json").write_text("{}")
    code, output = await scaling("explain", "--file", str(tmp_path / "decision.json"))
    assert code == 1 and "is not a decision" in output


async def test_cost_and_panic(node: NodeProcess) -> None:
    ran = await queztl("cost", url=node.api)
    assert ran.code == 0 and "0.0000 $/h" in ran.out and "none set" in ran.out
    assert (await queztl("cost", "--json", url=node.api)).json["running"] == []
    assert (await queztl("scale", "panic", url=node.api)).out.startswith("all paid nodes are being stopped")
    assert "panic" in (await queztl("cost", url=node.api)).out
    assert (await queztl("scale", "panic", "--undo", url=node.api)).code == 0
    assert "panic" not in (await queztl("cost", url=node.api)).out
    ran = await queztl("scale", "policy", "--off", "budget_usd_h=1.5", url=node.api)
    assert ran.code == 0 and "no node is started" in ran.err and "1.5" in ran.out
    assert "off" in (await queztl("scale", "status", url=node.api)).out


async def test_invalid_arguments(node: NodeProcess) -> None:
    for arguments in (("set", "two"), ("set", "--3"), ("policy", "max_nodes"), ("explain", "0"), ("fly",)):
        ran = await queztl("scale", *arguments, url=node.api)
        assert ran.code == 2 and ran.err.count("\n") <= 4, ran


async def scaling(*arguments: str, url: str = "") -> tuple[int, str]:
    """Run `python -m scaling`; returns (exit code, output)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scaling", *arguments, env=environment(url), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    text = out.decode()
    assert "Traceback" not in text, text
    return int(process.returncode or 0), text
