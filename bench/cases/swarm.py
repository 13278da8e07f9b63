"""Hundreds of nodes on one machine: two real ones, and a swarm of nodes without worker processes, on a real bus.

All nodes join at once, idle, get a new plan and run no-op tasks; a tenth of them dies at once, twice. METHODOLOGY.md
defines the figures; docs/scale.md has the results.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import environment, event_loop, profiling
from bench.harness.measure import BenchFailed
from bench.harness.node_process import NodeProcess
from bench.harness.progress import say
from bench.swarm import figures, scenes
from bench.swarm.journal import Journal
from bench.swarm.processes import Swarm
from bench.swarm.scenes import FROZEN, KILLED, Stage
from bench.swarm.table import table
from mesh.client import Mesh
from mesh.endpoint import bus_urls
from mesh.errors import QueztlError

__all__ = ["run", "table"]

SLOTS = 2
FEWEST = 10


def run(quick: bool, pairs: int | None, profile: str | None, nodes: int = 200, wrong_every: int = 0) -> dict[str, Any]:
    """Run the benchmark; returns its document. Raises: BenchFailed.

    `wrong_every`: each process of nodes falsifies every n-th result, to prove that the benchmark finds it; 0: none.
    """
    if nodes < FEWEST:
        raise BenchFailed(f"--nodes must be at least {FEWEST}: a tenth of them dies")
    folders = tempfile.TemporaryDirectory(prefix="queztl-swarm-", ignore_cleanup_errors=True)
    with folders as folder, event_loop.runner() as loop:
        try:
            return loop.run(_run(Path(folder), nodes, quick, pairs or (2 if quick else 5), profile, wrong_every))
        except QueztlError as error:
            raise BenchFailed(error.message) from None
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None  # ended by SIGTERM: everything that was started is gone by now


def split_nodes(nodes: int, processes: int) -> dict[str, int]:
    """process -> number of its nodes: a tenth that is killed, a tenth that is frozen, the rest in equal parts."""
    tenth = max(1, nodes // 10)
    rest = nodes - 2 * tenth
    even = {f"swarm {number + 1}": rest // processes + (number < rest % processes) for number in range(processes)}
    return even | {KILLED: tenth, FROZEN: tenth}


async def _run(
    folder: Path, nodes: int, quick: bool, rounds: int, profile: str | None, wrong_every: int
) -> dict[str, Any]:
    _end_on_sigterm()
    counts = split_nodes(nodes, os.cpu_count() or 1)
    facts = environment.describe()
    say("starting two real nodes")
    async with NodeProcess(folder / "leader", SLOTS) as leader:
        urls = await bus_urls(leader.api)
        specs: dict[str, dict[str, Any]] = {
            name: {
                "folder": str(folder / name.replace(" ", "-")), "urls": list(urls), "mesh": leader.mesh,
                "slots": SLOTS, "wrong_every": wrong_every,
            }
            for name in counts
        }  # fmt: skip
        async with (
            NodeProcess(folder / "other", SLOTS, leader.mesh, (urls[0],)) as other,
            Mesh(leader.api) as mesh,
            Swarm(specs) as swarm,
        ):
            journal = Journal(mesh.bus)
            await journal.start()
            stage = Stage({"leader": leader, "other": other}, swarm, mesh, journal, counts, say)
            document = await _play(stage, nodes, quick, rounds, profile)
    return document | {"quick": quick, "slots": SLOTS} | facts


async def _play(stage: Stage, nodes: int, quick: bool, rounds: int, profile: str | None) -> dict[str, Any]:
    """Run all scenes in turn."""
    document: dict[str, Any] = {"nodes": nodes, "real_nodes": len(stage.real)}
    say(f"{nodes} nodes join at once")
    document["join"] = await scenes.join(stage)
    say(f"every node knows every node after {document['join']['known_everywhere_s']} s; idling")
    document |= await scenes.idle(stage, rounds, 1.0 if quick else 4.0)
    if profile:
        say("profiling")
        await _profile(stage, Path(profile))
    document |= await scenes.look(stage, 3 if quick else 20)
    say("one more node joins, several times")
    document |= await scenes.change(stage, rounds)
    living = await stage.report()
    document["false_deaths_before"] = sorted({*living.gone, *stage.journal.gone})
    document["suspected_before"] = len(living.suspected)
    deaths: dict[str, dict[str, Any]] = {}
    document["deaths"] = deaths
    for how in (KILLED, FROZEN):
        say(f"a tenth of them is {how}")
        deaths[how] = await scenes.die(stage, how, 2.0 if quick else 4.0)
    say("no-op tasks")
    document |= await scenes.work(stage, rounds, 1_000 if quick else 10_000)
    document["tasks_lost"] = sum(death["tasks_lost"] for death in document["deaths"].values())
    document["other_leaders"] = sorted(set(stage.journal.leaders) - {stage.real["leader"].id})
    document["verdicts"] = figures.verdicts(document)
    return document


async def _profile(stage: Stage, folder: Path) -> None:
    """Profile both real nodes and one process of the swarm while there are only heartbeats."""
    pids = {name: node.processes()["daemon"].pid for name, node in stage.real.items()}
    first = next(iter(stage.counts))
    await profiling.profile(pids | {first: stage.swarm.processes[first].pid}, folder, asyncio.sleep(profiling.SECONDS))


def _end_on_sigterm() -> None:
    """End as on Ctrl-C, so that nothing that was started stays."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
