"""The mesh on this machine: throughput, latency, 1 ms tasks, memory, beside the raw limit of the same broker.

This process submits to a real node in other processes; every result is read back and checked. METHODOLOGY.md defines
the figures.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import environment, event_loop, profiling
from bench.harness.measure import BenchFailed, Round, disturbance, quantile, ratio, spread
from bench.harness.mesh_load import mesh_round, paced
from bench.harness.node_process import NodeProcess
from bench.harness.progress import say
from bench.harness.raw import Raw
from mesh.client import Mesh
from mesh.endpoint import bus_urls
from mesh.errors import QueztlError

SLOTS = 2
WINDOW = 1000
#: Latency is measured at this share of the measured throughput.
LOAD_SHARE = 0.1
IDLE_AFTER_S = 5.0


def run(quick: bool, pairs: int | None, profile: str | None) -> dict[str, Any]:
    """Run the benchmark; returns its document. Raises: BenchFailed."""
    with event_loop.runner() as loop, tempfile.TemporaryDirectory(prefix="queztl-bench-") as folder:
        try:
            return loop.run(_run(Path(folder), quick, pairs or (2 if quick else 5), profile))
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
            tasks_per_s = median(measured.per_s for measured in mesh_rounds)
            rate_per_s = tasks_per_s * LOAD_SHARE
            say(f"latency at {rate_per_s:.0f} tasks/s")
            latencies, raw_latencies = await _latencies(mesh, raw, rate_per_s, pairs, 1_000 if quick else 3_000)
            say("1 ms CPU tasks")
            spins = [await mesh_round(mesh, 1_000 if quick else 4_000, 200, spin_ms=1.0) for _ in range(min(pairs, 3))]
            disturbed = disturbance(before, environment.machine_cpu_s(), ours_s + used_s(node, raw))
            if profile:
                say("profiling")
                await profiling.record(node, Path(profile), mesh_round(mesh, 10 * tasks, WINDOW))
    raw_per_s = [measured.per_s for measured in raw_rounds]
    mesh_per_s = [measured.per_s for measured in mesh_rounds]
    spin_per_s = [measured.per_s for measured in spins]
    return {
        "tasks_per_s": round(tasks_per_s),
        "p50_ms": median(latencies["p50_ms"]),
        "p99_ms": median(latencies["p99_ms"]),
        "ratio_to_raw": round(ratio(list(zip(mesh_per_s, raw_per_s, strict=True))), 3),
        "cpu_1ms_tasks_per_s": round(median(spin_per_s)),
        "idle_pss_mb": round(sum(memory_mb.values()), 1),
        "raw_tasks_per_s": round(median(raw_per_s)),
        "raw_p50_ms": median(raw_latencies["p50_ms"]),
        "raw_p99_ms": median(raw_latencies["p99_ms"]),
        "latency_at_tasks_per_s": round(rate_per_s),
        "spread": {
            "tasks_per_s": round(spread(mesh_per_s), 3),
            "raw_tasks_per_s": round(spread(raw_per_s), 3),
            "cpu_1ms_tasks_per_s": round(spread(spin_per_s), 3),
        },
        "rounds": {
            "tasks_per_s": [round(per_s) for per_s in mesh_per_s],
            "raw_tasks_per_s": [round(per_s) for per_s in raw_per_s],
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
    """(mesh rounds, raw rounds, CPU µs per task of each process in the mesh rounds, the same in the raw rounds).

    The rounds alternate, so that a slow minute slows both.
    """
    mesh_rounds: list[Round] = []
    raw_rounds: list[Round] = []
    spent: tuple[dict[str, float], dict[str, float]] = ({}, {})

    def count(counter: dict[str, float], sign: int) -> None:
        for name, cpu_s in {**node.cpu_s(), "raw worker": raw.cpu_s(), "submitter": time.process_time()}.items():
            counter[name] = counter.get(name, 0.0) + sign * cpu_s

    for number in range(1, pairs + 1):
        count(spent[0], -1)
        mesh_rounds.append(await mesh_round(mesh, tasks, WINDOW))
        count(spent[0], 1)
        count(spent[1], -1)
        raw_rounds.append(await raw.round(tasks, WINDOW))
        count(spent[1], 1)
        say(f"pair {number}: mesh {mesh_rounds[-1].per_s:,.0f}, raw {raw_rounds[-1].per_s:,.0f} tasks/s")
    mesh_us, raw_us = (
        {name: round(cpu_s / pairs / tasks * 1e6, 1) for name, cpu_s in counter.items()} for counter in spent
    )
    return mesh_rounds, raw_rounds, without_idle(mesh_us), without_idle(raw_us)


async def _latencies(
    mesh: Mesh, raw: Raw, rate_per_s: float, rounds: int, tasks: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """(latency quantiles of the mesh, of raw), one per round: one pause of the disk spoils only one round."""
    found: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for _ in range(rounds):
        gc.collect()
        both = await paced(mesh, rate_per_s, tasks), await raw.paced(rate_per_s, tasks)
        for into, samples_s in zip(found, both, strict=True):
            for name, share in (("p50_ms", 0.50), ("p99_ms", 0.99), ("max_ms", 1.0)):
                into.setdefault(name, []).append(round(quantile(samples_s, share) * 1000, 3))
    return found


def used_s(node: NodeProcess, raw: Raw) -> float:
    """CPU seconds so far of everything that is measured."""
    return sum(node.cpu_s().values()) + raw.cpu_s() + time.process_time()


def without_idle(cpu_us: dict[str, float]) -> dict[str, float]:
    """The processes that used at least half a microsecond per task."""
    return {name: per_task for name, per_task in cpu_us.items() if per_task >= 0.5}


def table(document: dict[str, Any]) -> str:
    """The document as text."""
    memory = ", ".join(f"{name} {mb:g}" for name, mb in document["idle_pss_mb_of"].items())
    cpu, raw_cpu = (
        f"{sum(document[key].values()):.0f}: " + ", ".join(f"{name} {value:g}" for name, value in document[key].items())
        for key in ("cpu_us_per_task", "raw_cpu_us_per_task")
    )
    spreads, disturbed = document["spread"], document["disturbed"]
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
        f"CPU per task, µs      {cpu}",
        f"CPU per raw task, µs  {raw_cpu}",
        "",
        f"other processes used {disturbed['others']:.0%} of the machine, its host took {disturbed['stolen']:.0%}",
        environment.machine_line(document),
    ]
    return "\n".join(lines)
