"""Hundreds of nodes on one machine: real ones, and a swarm that is them but for worker processes, on a real bus.

A storm of joins, idling, a new plan, no-op tasks, and a tenth of them dying at once, twice. METHODOLOGY.md says what
each figure means; docs/scale.md what came of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import environment
from bench.measure import BenchFailed
from bench.node_process import NodeProcess
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
    """The whole document. Raises: BenchFailed.

    `wrong_every`: each node process spoils every so-manieth result, to prove that the bench finds it.
    """
    if nodes < FEWEST:
        raise BenchFailed(f"--nodes must be at least {FEWEST}: a tenth of them dies")
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with tempfile.TemporaryDirectory(prefix="queztl-swarm-", ignore_cleanup_errors=True) as folder, runner:
        try:
            return runner.run(_run(Path(folder), nodes, quick, pairs or (2 if quick else 5), profile, wrong_every))
        except QueztlError as error:
            raise BenchFailed(error.message) from None
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None  # told to end by SIGTERM: all that was started is gone by now


def shared_out(nodes: int, processes: int) -> dict[str, int]:
    """Process -> how many nodes it has: a tenth that will be killed, a tenth that will be frozen, the rest evenly."""
    tenth = max(1, nodes // 10)
    rest = nodes - 2 * tenth
    even = {f"swarm {number + 1}": rest // processes + (number < rest % processes) for number in range(processes)}
    return even | {KILLED: tenth, FROZEN: tenth}


async def _run(
    folder: Path, nodes: int, quick: bool, rounds: int, profile: str | None, wrong_every: int
) -> dict[str, Any]:
    _end_on_sigterm()
    counts = shared_out(nodes, os.cpu_count() or 1)
    facts = environment.describe()
    say("starting two real nodes")
    async with NodeProcess(folder / "leader", SLOTS) as leader:
        urls = await bus_urls(leader.api)
        specs = {
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
    """All scenes in turn."""
    document: dict[str, Any] = {"nodes": nodes, "real_nodes": len(stage.real)}
    say(f"{nodes} nodes join at once")
    document["join"] = await scenes.join(stage)
    say(f"all know all after {document['join']['known_everywhere_s']} s; idling")
    document |= await scenes.idle(stage, rounds, 1.0 if quick else 4.0)
    if profile:
        say("profiling")
        await _profile(stage, Path(profile))
    document |= await scenes.look(stage, 3 if quick else 20)
    say("one more node, several times over")
    document |= await scenes.change(stage, rounds)
    living = await stage.report()
    document["false_deaths_before"] = sorted({*living.gone, *stage.journal.gone})
    document["suspected_before"] = len(living.suspected)
    document["deaths"] = {}
    for how in (KILLED, FROZEN):
        say(f"a tenth of them is {how}")
        document["deaths"][how] = await scenes.die(stage, how, 2.0 if quick else 4.0)
    say("no-op tasks")
    document |= await scenes.work(stage, rounds, 1_000 if quick else 10_000)
    document["tasks_lost"] = sum(one["tasks_lost"] for one in document["deaths"].values())
    document["other_leaders"] = sorted(set(stage.journal.leaders) - {stage.real["leader"].id})
    document["verdicts"] = figures.verdicts(document)
    return document


async def _profile(stage: Stage, folder: Path) -> None:
    """py-spy on both real nodes and one process of the swarm while nothing happens but beats."""
    from bench import profiling

    pids = {name: node.processes()["daemon"].pid for name, node in stage.real.items()}
    first = next(iter(stage.counts))
    await profiling.watch(pids | {first: stage.swarm.processes[first].pid}, folder, asyncio.sleep(profiling.SECONDS))


def _end_on_sigterm() -> None:
    """As on Ctrl-C: nothing that was started stays."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
