"""A run from the command line or a node: on this machine, or on nodes of a mesh, one after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bench import environment
from bench.suite.local import local_place
from bench.suite.mesh_place import facts_of, find, mesh_place
from bench.suite.model import Benchmark, Outcome, Progress
from bench.suite.repetition import FULL, QUICK, Rules
from bench.suite.run import Keep, Setting, Told, run_all
from mesh import benchmarks
from mesh.client import Mesh
from mesh.messages import NodeRecord

_THERE = ("up", "suspect")


@dataclass(frozen=True)
class Run:
    """What is to be run, and where its outcomes go."""

    name: str
    chosen: Sequence[Benchmark]
    quick: bool
    keep: Keep

    @property
    def _rules(self) -> Rules:
        return QUICK if self.quick else FULL

    @property
    def _steps(self) -> int:
        """How many times a benchmark is begun on a node."""
        return len(self.chosen) * self._rules.passes

    def _setting(self, cores: int) -> Setting:
        return Setting(self.name, self.quick, self._rules, cores)

    async def here(self, cores: int | None, told: Told) -> list[Outcome]:
        """On this machine, in worker processes of its own. Raises: CannotStart."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        setting = replace(self._setting(cores or usable), facts=environment.describe())
        with tempfile.TemporaryDirectory(prefix="queztl-bench-") as folder:
            return await run_all(
                self.chosen, setting, lambda: local_place(Path(folder) / "worker", setting.cores), told, self.keep
            )

    async def on_mesh(self, url: str, wanted: Sequence[str], told: Told) -> list[Outcome]:
        """On nodes of the mesh behind `url`, each outcome kept in the mesh too.

        Raises: BenchFailed for a node that is not there; BusUnavailable.
        """
        found: list[Outcome] = []
        async with Mesh(url) as mesh:
            nodes = [await find(mesh, one) for one in wanted]
            nodes = nodes or [one for one in await mesh.nodes() if one.state in _THERE]
            for place, node in enumerate(nodes):
                found += await self._on_node(mesh, node, _shifted(told, place, len(nodes), self._steps, node.id))
                for outcome in found[-len(self.chosen) :]:
                    await benchmarks.store_outcome(mesh.bus, msgspec.to_builtins(outcome))
        return found

    async def _on_node(self, mesh: Mesh, node: NodeRecord, told: Told) -> list[Outcome]:
        setting = replace(self._setting(node.slots), node=node.id, facts=facts_of(node))
        return await run_all(self.chosen, setting, lambda: mesh_place(mesh, node), told, self.keep)


def _shifted(told: Told, place: int, nodes: int, benchmarks_each: int, node: str) -> Told:
    """The progress of one node as part of the whole run's."""

    def tell(progress: Progress) -> None:
        whole = replace(progress, done=place * benchmarks_each + progress.done, total=nodes * benchmarks_each)
        told(replace(whole, node=node))

    return tell
