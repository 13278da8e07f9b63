"""The scenes of a swarm, in order: join, idle, look, change, die, work. Each returns its part of the document."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.harness import environment
from bench.harness.measure import BenchFailed, disturbance
from bench.harness.mesh_load import mesh_round
from bench.harness.node_process import NodeProcess
from bench.swarm import figures
from bench.swarm.figures import Report
from bench.swarm.journal import Journal
from bench.swarm.processes import Swarm
from mesh.client import Mesh, TaskHandle
from mesh.errors import QueztlError
from mesh.node_api import API_PREFIX, send

KILLED, FROZEN = "killed", "frozen"
#: Time limit of a wait, seconds.
WITHIN_S = 60.0
#: A death that is not noticed within this time counts as unnoticed, seconds.
NOTICE_WITHIN_S = 20.0
WINDOW = 1000
STATUS_TIMEOUT_S = 30.0


@dataclass
class Stage:
    """Everything that takes part in a scene."""

    real: dict[str, NodeProcess]
    """The real nodes: leader and other."""
    swarm: Swarm
    mesh: Mesh
    journal: Journal
    counts: dict[str, int]
    """process of the swarm -> number of its nodes; living processes only"""
    say: Callable[[str], None]

    def cpu_s(self) -> dict[str, float]:
        """process -> CPU seconds so far, of the living processes"""
        leader = self.real["leader"].cpu_s()
        found = {"leader": leader["daemon"], "bus server": leader["server"]}
        found |= {name: node.cpu_s()["daemon"] for name, node in self.real.items() if name != "leader"}
        return found | {name: process.cpu_s() for name, process in self.swarm.processes.items() if name in self.counts}

    def ids(self) -> list[str]:
        """Ids of all living nodes."""
        swarm = [node for name in self.counts for node in self.swarm.processes[name].ids]
        return [node.id for node in self.real.values()] + swarm

    async def report(self) -> Report:
        """The logs of all living nodes of the swarm."""
        reports = await self.swarm.all("report", of=[*self.counts])
        return figures.merge(Report.from_json(report) for report in reports)

    async def forget(self) -> None:
        """Begin new logs everywhere."""
        self.journal.forget()
        await self.swarm.all("forget", of=[*self.counts])


def _load() -> float:
    return round(os.getloadavg()[0], 2)


async def join(stage: Stage) -> dict[str, Any]:
    """All nodes start at the same time; ends when the leader and every node know all nodes."""
    began, load, cpu = time.monotonic(), _load(), stage.cpu_s()
    joins = [stage.swarm.processes[name].order("join", WITHIN_S, count=count) for name, count in stage.counts.items()]
    answers = await asyncio.gather(*joins)
    for name, answer in zip(stage.counts, answers, strict=True):
        stage.swarm.processes[name].ids += answer["recorded"]
    ids = stage.ids()
    up, planned, known = await asyncio.gather(
        stage.swarm.all("until_up", WITHIN_S, of=[*stage.counts], ids=ids),
        stage.journal.until_planned(ids, (), WITHIN_S),
        stage.journal.until_joined(set(ids) - {node.id for node in stage.real.values()}, WITHIN_S),
    )
    missing = sum(answer["missing"] for answer in up)
    if missing or planned < 0 or known < 0:
        who = f"{missing} nodes do not know all" if missing else "the leader does not know all"
        raise BenchFailed(f"join: {who} of {len(ids)} nodes after {WITHIN_S:g} s; load {_load()}")
    spent = figures.shares(cpu, stage.cpu_s(), 1.0)
    return {
        "started_s": round(max(answer["at"] for answer in answers) - began, 2),
        "known_to_leader_s": round(known - began, 2),
        "known_everywhere_s": round(max(answer["at"] for answer in up) - began, 2),
        "planned_s": round(planned - began, 2),
        "plans_written": len(stage.journal.plans),
        "started_again": sum(answer["again"] for answer in answers),
        "cpu_s": {name: round(percent / 100, 2) for name, percent in spent.items()},
        "load": [load, _load()],
    }


async def idle(stage: Stage, windows: int, window_s: float) -> dict[str, Any]:
    """Only heartbeats: each process's share of a core, and its memory."""
    await asyncio.sleep(window_s)
    used: list[dict[str, float]] = []
    machine, began = environment.machine_cpu_s(), sum(stage.cpu_s().values())
    for _ in range(windows):
        before, at = stage.cpu_s(), time.monotonic()
        await asyncio.sleep(window_s)
        used.append(figures.shares(before, stage.cpu_s(), time.monotonic() - at))
    cpu = figures.summed(used)
    swarm = sum(cpu[name]["median"] for name in stage.counts)
    nodes = sum(stage.counts.values())
    leader_mb = stage.real["leader"].memory_mb()
    swarm_mb = {name: environment.pss_mb(stage.swarm.processes[name].pid) for name in stage.counts}
    ours_s = sum(stage.cpu_s().values()) - began
    return {
        "cpu_core_percent": cpu | {"a swarm node": {"median": round(swarm / nodes, 3)}},
        "cpu_windows": [windows, window_s],
        "pss_mb": {
            "leader": leader_mb["daemon"],
            "bus server": leader_mb["server"],
            "other": stage.real["other"].memory_mb()["daemon"],
            "a swarm node": round(sum(swarm_mb.values()) / nodes, 2),
        },
        "idle_load": _load(),
        "disturbed": disturbance(machine, environment.machine_cpu_s(), ours_s),
    }


async def look(stage: Stage, times: int) -> dict[str, Any]:
    """Request network/status of both real nodes: its time, its size, and whether it lists every node."""
    found: dict[str, dict[str, Any]] = {}
    total = len(stage.ids())
    for name, node in stage.real.items():
        took_ms: list[float] = []
        body = b""
        for _ in range(times):
            began = time.perf_counter()
            url = f"{node.api}{API_PREFIX}/network/status"
            body = (await asyncio.to_thread(send, url, timeout_s=STATUS_TIMEOUT_S)).body
            took_ms.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.1)
        listed = json.loads(body)["registry"]["total_nodes"]
        if listed != total:
            raise BenchFailed(f"network/status of {name} lists {listed} of {total} nodes")
        found[name] = figures.each(took_ms, 1) | {"bytes": len(body), "max": round(max(took_ms), 1)}
    return {"network_status_ms": found}


async def change(stage: Stage, times: int) -> dict[str, Any]:
    """One more node joins, several times; each ends when the plan that ranks it is made and all nodes have read it."""
    name = next(iter(stage.counts))
    made_s: list[float] = []
    everywhere_s: list[float] = []
    for _ in range(times):
        answer = await stage.swarm.processes[name].order("join", WITHIN_S, count=1)
        ((node, recorded),) = answer["recorded"].items()
        stage.swarm.processes[name].ids.append(node)
        stage.counts[name] += 1
        made = await stage.journal.until_planned([node], (), WITHIN_S)
        ranked = await stage.swarm.all("until_ranked", WITHIN_S, of=[*stage.counts], ids=[node])
        if made < 0 or any(answer["missing"] for answer in ranked):
            raise BenchFailed(f"no plan with the new node within {WITHIN_S:g} s")
        made_s.append(made - recorded)
        everywhere_s.append(max(each["at"] for each in ranked) - recorded)
    return {"plan": {"made_s": figures.each(made_s), "everywhere_s": figures.each(everywhere_s), "load": _load()}}


async def work(stage: Stage, rounds: int, tasks: int) -> dict[str, Any]:
    """No-op tasks, every result checked: tasks per second, nodes that worked, and CPU time per task by process."""
    await stage.forget()
    await mesh_round(stage.mesh, max(200, tasks // 5), WINDOW)
    before, cpu, load = (await stage.report()).done, stage.cpu_s(), _load()
    rates = [(await mesh_round(stage.mesh, tasks, WINDOW)).per_s for _ in range(rounds)]
    spent = figures.shares(cpu, stage.cpu_s(), rounds * tasks / 1e4)  # % of a core -> µs per task
    done = (await stage.report()).done
    return {
        "tasks_per_s": figures.each(rates, 0),
        "tasks_a_round": tasks,
        "nodes_that_worked": sum(done[node] > before.get(node, 0) for node in done),
        "work_cpu_us_per_task": {name: round(per_task, 1) for name, per_task in spent.items()},
        "work_load": [load, _load()],
    }


async def die(stage: Stage, how: str, held_s: float) -> dict[str, Any]:
    """A process of the swarm is killed or frozen while its nodes hold tasks of `held_s` seconds."""
    await stage.forget()
    process, dead = stage.swarm.processes[how], list(stage.swarm.processes[how].ids)
    tasks, held = await _hold(stage, process.order, held_s)
    load = _load()
    del stage.counts[how]
    at = time.monotonic()
    process.send_signal(signal.SIGKILL if how == KILLED else signal.SIGSTOP)
    living = [*stage.counts]
    _, unranked, missed, planned = await asyncio.gather(
        stage.swarm.all("until_gone", NOTICE_WITHIN_S, of=living, ids=dead),
        stage.swarm.all("until_unranked", NOTICE_WITHIN_S, of=living, ids=dead),
        stage.journal.until_gone(dead, NOTICE_WITHIN_S),
        stage.journal.until_planned((), dead, NOTICE_WITHIN_S),
    )
    ended_s, lost = await _results(tasks, at)
    found = figures.deaths(await stage.report(), dead, at)
    journaled = [stage.journal.gone[node] for node in dead if node in stage.journal.gone]
    found["false_deaths"] = sorted({*found["false_deaths"], *stage.journal.gone.keys() - set(dead)})
    found |= {
        "leader_s": round(max(journaled, default=at) - at, 3),
        "leader_missed": missed,
        "plan_made_s": round(planned - at, 3) if planned > 0 else -1,
        "plan_everywhere_s": round(max(answer["at"] for answer in unranked) - at, 3),
        "plan_missing": sum(answer["missing"] for answer in unranked),
        "tasks": len(tasks),
        "tasks_held": held,
        "last_result_s": round(ended_s, 2),
        "tasks_lost": lost,
        "load": load,
    }
    if how == FROZEN:
        found |= await _thaw(stage, how, dead)
    return found


async def _hold(stage: Stage, order: Callable[..., Any], held_s: float) -> tuple[list[tuple[int, TaskHandle]], int]:
    """(two tasks per node of `held_s` seconds, how many of them the nodes hold that are about to die)"""
    count = 2 * len(stage.ids())
    payloads = [{"value": number, "sleep_s": held_s} for number in range(count)]
    handles = await asyncio.gather(*(stage.mesh.start("echo", payload) for payload in payloads))
    held = await order("until_holding", held_s / 4)
    # Deliveries are announced within 50 ms; an unannounced one is redelivered after `ack_wait`, and measured as well.
    await asyncio.sleep(0.2)
    return list(enumerate(handles)), held["tasks"]


async def _results(tasks: list[tuple[int, TaskHandle]], at: float) -> tuple[float, int]:
    """(seconds from `at` to the last result, how many tasks had none). Raises: BenchFailed for a wrong result."""

    async def is_right(number: int, handle: TaskHandle) -> bool:
        try:
            result = await handle.result(WITHIN_S)
        except QueztlError:
            return False
        if result != {"value": number}:
            raise BenchFailed(f"task {handle.id} answered {result!r}, not {number}")
        return True

    ended = await asyncio.gather(*(is_right(*task) for task in tasks))
    return time.monotonic() - at, ended.count(False)


async def _thaw(stage: Stage, how: str, dead: list[str]) -> dict[str, Any]:
    """Let the frozen nodes go on; ends when every node considers every node up again."""
    at = time.monotonic()
    stage.swarm.processes[how].send_signal(signal.SIGCONT)
    stage.counts[how] = len(dead)
    up = await stage.swarm.all("until_up", NOTICE_WITHIN_S, of=[*stage.counts], ids=stage.ids())
    return {
        "back_everywhere_s": round(max(answer["at"] for answer in up) - at, 3),
        "not_back": sum(answer["missing"] for answer in up),
    }
