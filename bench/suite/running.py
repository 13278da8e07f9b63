"""Runs the suite on this machine, or on nodes of a mesh one after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bench.harness import environment
from bench.suite.local import local_place
from bench.suite.mesh_place import facts_of, find, mesh_place
from bench.suite.model import Benchmark, Outcome, Progress
from bench.suite.repetition import FULL, QUICK, Rules
from bench.suite.run import Keep, OnProgress, Setting, run_all
from mesh import benchmarks
from mesh.client import Mesh
from mesh.messages import NodeRecord

_PRESENT = ("up", "suspect")


@dataclass(frozen=True)
class Run:
    """The benchmarks to run, and where their outcomes go."""

    name: str
    chosen: Sequence[Benchmark]
    quick: bool
    keep: Keep

    @property
    def _rules(self) -> Rules:
        return QUICK if self.quick else FULL

    @property
    def _steps(self) -> int:
        """Steps of progress per node: benchmarks x passes."""
        return len(self.chosen) * self._rules.passes

    def _setting(self, cores: int) -> Setting:
        return Setting(self.name, self.quick, self._rules, cores)

    async def here(self, cores: int | None, on_progress: OnProgress) -> list[Outcome]:
        """Run on this machine, in worker processes of its own. Raises: CannotStart."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        setting = replace(self._setting(cores or usable), facts=environment.describe())
        with tempfile.TemporaryDirectory(prefix="queztl-bench-") as folder:
            return await run_all(
                self.chosen,
                setting,
                lambda: local_place(Path(folder) / "worker", setting.cores),
                on_progress,
                self.keep,
            )

    async def on_mesh(self, url: str, node_names: Sequence[str], on_progress: OnProgress) -> list[Outcome]:
        """Run on nodes of the mesh at `url` (without names: all of them); the mesh keeps the outcomes too.

        Raises: BenchFailed for a node that does not exist; BusUnavailable.
        """
        found: list[Outcome] = []
        async with Mesh(url) as mesh:
            nodes = [await find(mesh, name) for name in node_names]
            nodes = nodes or [node for node in await mesh.nodes() if node.state in _PRESENT]
            for place, node in enumerate(nodes):
                found += await self._on_node(mesh, node, _shifted(on_progress, place, len(nodes), self._steps, node.id))
                for outcome in found[-len(self.chosen) :]:
                    await benchmarks.store_outcome(mesh.bus, msgspec.to_builtins(outcome))
        return found

    async def _on_node(self, mesh: Mesh, node: NodeRecord, on_progress: OnProgress) -> list[Outcome]:
        setting = replace(self._setting(node.slots), node=node.id, facts=facts_of(node))
        return await run_all(self.chosen, setting, lambda: mesh_place(mesh, node), on_progress, self.keep)


def _shifted(on_progress: OnProgress, place: int, nodes: int, benchmarks_each: int, node: str) -> OnProgress:
    """A callback that reports the progress on one node as part of the whole run."""

    def report(progress: Progress) -> None:
        whole = replace(progress, done=place * benchmarks_each + progress.done, total=nodes * benchmarks_each)
        on_progress(replace(whole, node=node))

    return report
