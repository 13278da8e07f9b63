"""The mesh on this machine: throughput, latency, 1 ms tasks, memory, beside the raw limit of the same broker.

Submits from this process to a real node in others; every result is read back and compared. METHODOLOGY.md says what
each figure means.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench import environment, profiling
from bench.measure import BenchFailed, Round, disturbance, quantile, ratio, spread
from bench.node_process import NodeProcess
from bench.pacing import evenly
from bench.raw import Raw
from mesh.client import Mesh
from mesh.endpoint import bus_urls
from mesh.errors import QueztlError

SLOTS = 2
WINDOW = 1000
#: Latency is measured at this share of the measured throughput: "under a fifth".
LOAD_SHARE = 0.1
IDLE_AFTER_S = 5.0
#: How long a round may take before the bench gives up.
ROUND_WITHIN_S = 120.0


def run(quick: bool, pairs: int | None, profile: str | None) -> dict[str, Any]:
    """The whole document. Raises: BenchFailed."""
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner, tempfile.TemporaryDirectory(prefix="queztl-bench-") as folder:
        try:
            return runner.run(_run(Path(folder), quick, pairs or (2 if quick else 5), profile))
        except QueztlError as error:
            raise BenchFailed(error.message) from None


async def _run(folder: Path, quick: bool, pairs: int, profile: str | None) -> dict[str, Any]:
    tasks = 4_000 if quick else 25_000
    facts = environment.describe()
    say("starting a node")
    async with NodeProcess(folder / "node", SLOTS) as node:
        await asyncio.sleep(1.0 if quick else IDLE_AFTER_S)
        memory_mb = node.memory_mb()
        say(f"idle: {sum(memory_mb.values()):.0f} MB")
        urls = list(await bus_urls(node.api))
        async with Mesh(node.api) as mesh, Raw(urls) as raw:
            say("warming up")
            await mesh_round(mesh, 2_000, WINDOW)
            await raw.round(2_000, WINDOW)
            before, ours_s = environment.machine_cpu_s(), -used_s(node, raw)
            mesh_rounds, raw_rounds, cpu_us, raw_cpu_us = await _pairs(node, mesh, raw, pairs, tasks)
            tasks_per_s = median(one.per_s for one in mesh_rounds)
            rate_per_s = tasks_per_s * LOAD_SHARE
            say(f"latency at {rate_per_s:.0f} tasks/s")
            latencies, raw_latencies = await _latencies(mesh, raw, rate_per_s, pairs, 1_000 if quick else 3_000)
            say("1 ms CPU tasks")
            spins = [await mesh_round(mesh, 1_000 if quick else 4_000, 200, spin_ms=1.0) for _ in range(min(pairs, 3))]
            disturbed = disturbance(before, environment.machine_cpu_s(), ours_s + used_s(node, raw))
            if profile:
                say("profiling")
                await profiling.record(node, Path(profile), mesh_round(mesh, 10 * tasks, WINDOW))
    raw_per_s = [one.per_s for one in raw_rounds]
    mesh_per_s = [one.per_s for one in mesh_rounds]
    return {
        "tasks_per_s": round(tasks_per_s),
        "p50_ms": median(latencies["p50_ms"]),
        "p99_ms": median(latencies["p99_ms"]),
        "ratio_to_raw": round(ratio(list(zip(mesh_per_s, raw_per_s, strict=True))), 3),
        "cpu_1ms_tasks_per_s": round(median(one.per_s for one in spins)),
        "idle_pss_mb": round(sum(memory_mb.values()), 1),
        "raw_tasks_per_s": round(median(raw_per_s)),
        "raw_p50_ms": median(raw_latencies["p50_ms"]),
        "raw_p99_ms": median(raw_latencies["p99_ms"]),
        "latency_at_tasks_per_s": round(rate_per_s),
        "spread": {
            "tasks_per_s": round(spread(mesh_per_s), 3),
            "raw_tasks_per_s": round(spread(raw_per_s), 3),
            "cpu_1ms_tasks_per_s": round(spread([one.per_s for one in spins]), 3),
        },
        "rounds": {
            "tasks_per_s": [round(one) for one in mesh_per_s],
            "raw_tasks_per_s": [round(one) for one in raw_per_s],
            **latencies,
            **{f"raw_{name}": values for name, values in raw_latencies.items()},
        },
        "cpu_us_per_task": cpu_us,
        "raw_cpu_us_per_task": raw_cpu_us,
        "idle_pss_mb_of": memory_mb,
        "tasks_a_round": tasks,
        "window": WINDOW,
        "slots": SLOTS,
        "quick": quick,
        "disturbed": disturbed,
        **facts,
    }


async def _pairs(
    node: NodeProcess, mesh: Mesh, raw: Raw, pairs: int, tasks: int
) -> tuple[list[Round], list[Round], dict[str, float], dict[str, float]]:
    """Mesh and raw rounds in turn, so that a slow minute slows both; and the CPU time a task of each cost whom, µs."""
    mesh_rounds, raw_rounds = [], []
    spent: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def spend(counter: Counter[str], sign: int) -> None:
        for name, cpu_s in {**node.cpu_s(), "raw worker": raw.cpu_s(), "submitter": time.process_time()}.items():
            counter[name] += sign * cpu_s

    for number in range(1, pairs + 1):
        spend(spent[0], -1)
        mesh_rounds.append(await mesh_round(mesh, tasks, WINDOW))
        spend(spent[0], 1)
        spend(spent[1], -1)
        raw_rounds.append(await raw.round(tasks, WINDOW))
        spend(spent[1], 1)
        say(f"pair {number}: mesh {mesh_rounds[-1].per_s:,.0f}, raw {raw_rounds[-1].per_s:,.0f} tasks/s")
    mesh_us, raw_us = ({name: round(one / pairs / tasks * 1e6, 1) for name, one in each.items()} for each in spent)
    return mesh_rounds, raw_rounds, worth(mesh_us), worth(raw_us)


async def _latencies(
    mesh: Mesh, raw: Raw, rate_per_s: float, rounds: int, tasks: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Quantiles of each paced round, mesh and raw in turn: one pause of the disk spoils one round, not the figure."""
    found: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for _ in range(rounds):
        gc.collect()
        both = await paced(mesh, rate_per_s, tasks), await raw.paced(rate_per_s, tasks)
        for into, samples_s in zip(found, both, strict=True):
            for name, share in (("p50_ms", 0.50), ("p99_ms", 0.99), ("max_ms", 1.0)):
                into.setdefault(name, []).append(round(quantile(samples_s, share) * 1000, 3))
    return found


def used_s(node: NodeProcess, raw: Raw) -> float:
    """CPU seconds of everything under measurement so far."""
    return sum(node.cpu_s().values()) + raw.cpu_s() + time.process_time()


def worth(cpu_us: dict[str, float]) -> dict[str, float]:
    """Those that did anything."""
    return {name: one for name, one in cpu_us.items() if one >= 0.5}


async def mesh_round(mesh: Mesh, tasks: int, window: int, **payload: Any) -> Round:
    """`tasks` echo tasks through the SDK, at most `window` open at once.

    Raises: BenchFailed when an answer is wrong, missing or late.
    """

    def payloads() -> Iterator[dict[str, Any]]:
        for number in range(tasks):
            yield {"value": number, **payload}

    right, began = 0, time.perf_counter()
    try:
        async with asyncio.timeout(ROUND_WITHIN_S):
            async for item in mesh.map("echo", payloads(), ordered=False, window=window):
                if item.result != {"value": item.index}:
                    raise BenchFailed(f"mesh: task {item.task} answered {item.result!r} ({item.error})")
                right += 1
    except TimeoutError:
        raise BenchFailed(f"mesh: {right} of {tasks} tasks ended within {ROUND_WITHIN_S:g} s") from None
    took_s = time.perf_counter() - began
    if right != tasks:
        raise BenchFailed(f"mesh: {right} of {tasks} tasks came back")
    return Round(tasks, took_s)


async def paced(mesh: Mesh, rate_per_s: float, tasks: int) -> list[float]:
    """Open loop: tasks leave at `rate_per_s` whether or not earlier ones have ended. Seconds from call to result."""
    latencies_s: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        result = await mesh.submit("echo", {"value": number}, wait_s=30.0)
        latencies_s.append(time.perf_counter() - began)
        if result != {"value": number}:
            raise BenchFailed(f"mesh: task {number} answered {result!r}")

    async with asyncio.TaskGroup() as group:
        await evenly(rate_per_s, tasks, lambda number: group.create_task(one(number)))
    return latencies_s


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    memory = ", ".join(f"{name} {mb:g}" for name, mb in document["idle_pss_mb_of"].items())
    cpu, raw_cpu = (
        f"{sum(document[key].values()):.0f}: " + ", ".join(f"{name} {one:g}" for name, one in document[key].items())
        for key in ("cpu_us_per_task", "raw_cpu_us_per_task")
    )
    machine, spreads = document["machine"], document["spread"]
    lines = [
        f"tasks/s through workers   {document['tasks_per_s']:>10,}   spread {spreads['tasks_per_s']:.0%}",
        f"raw limit, tasks/s        {document['raw_tasks_per_s']:>10,}   spread {spreads['raw_tasks_per_s']:.0%}",
        f"ratio to raw              {document['ratio_to_raw']:>10.2f}",
        f"p50 / p99 ms              {document['p50_ms']:>10.2f} / {document['p99_ms']:.2f}"
        f"   at {document['latency_at_tasks_per_s']:,} tasks/s; raw {document['raw_p50_ms']:.2f} / "
        f"{document['raw_p99_ms']:.2f}",
        f"1 ms CPU tasks/s          {document['cpu_1ms_tasks_per_s']:>10,}"
        f"   spread {spreads['cpu_1ms_tasks_per_s']:.0%}",
        f"idle node, MB PSS         {document['idle_pss_mb']:>10.1f}   {memory}",
        f"CPU a task, µs      {cpu}",
        f"CPU a raw task, µs  {raw_cpu}",
        "",
        f"meanwhile others had {document['disturbed']['others']:.0%} of the machine, its host took "
        f"{document['disturbed']['stolen']:.0%}",
        f"commit {document['commit']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, load before "
        f"{document['load_before'][0]}{', quick: a look, not a result' if document['quick'] else ''}",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
