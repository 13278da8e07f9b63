"""`python -m bench swarm`, small: a complete document, deaths noticed, falsified results found, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


async def bench(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", "swarm", *arguments, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def until(line: str, process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    printed = b""
    while output := await process.stderr.readline():
        if line in output.decode():
            return
        printed += output
    raise AssertionError(f"it never printed {line!r}, but: {printed.decode()}")


@pytest.mark.faults
async def test_a_small_swarm_is_measured_to_the_end() -> None:
    process = await bench("--nodes", "20", "--quick", "--json")
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    document = json.loads(out)
    assert document["join"]["known_everywhere_s"] > 0 and document["join"]["plans_written"] > 0
    assert {"leader", "bus server", "other", "swarm 1", "killed", "frozen"} <= document["cpu_core_percent"].keys()
    assert document["pss_mb"]["a swarm node"] > 0
    assert document["network_status_ms"]["leader"]["bytes"] > 20 * 300
    assert document["plan"]["everywhere_s"]["median"] > 0
    for how in ("killed", "frozen"):
        death = document["deaths"][how]
        assert (death["nodes"], death["unnoticed"], death["leader_missed"], death["tasks_lost"]) == (2, 0, 0, 0)
        assert death["observers"] == 20 if how == "killed" else 18
        assert death["tasks_held"] > 0, "they died with work, and all of it ended elsewhere"
        assert death["last_result_s"] < 15.0, "redelivered by the leader, not by the bus after ack_wait"
    assert document["deaths"]["killed"]["leader_s"] < document["deaths"]["frozen"]["leader_s"]
    assert document["deaths"]["frozen"]["not_back"] == 0
    assert document["tasks_per_s"]["median"] > 0 and document["nodes_that_worked"] >= 2
    assert {verdict["what"] for verdict in document["verdicts"]} >= {
        "leader, % of a core",
        "false deaths",
        "tasks lost",
    }


@pytest.mark.faults
async def test_a_falsified_result_is_found() -> None:
    process = await bench("--nodes", "10", "--quick", "--json", "--wrong-every", "3")
    out, err = await process.communicate()
    assert process.returncode == 1 and not out
    assert "'falsified'" in err.decode()


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_after_a_signal_it_leaves_no_process_behind(number: signal.Signals) -> None:
    process = await bench("--nodes", "10", "--quick")
    await until("idling", process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert sum("bench.swarm.process" in " ".join(child.cmdline()) for child in family) >= 3
    process.send_signal(number)
    async with asyncio.timeout(30):
        await process.communicate()
    assert process.returncode == 130
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


async def test_too_few_nodes_are_refused_in_a_sentence() -> None:
    process = await bench("--nodes", "3")
    _, err = await process.communicate()
    assert process.returncode == 1 and b"--nodes must be at least 10" in err and b"Traceback" not in err
