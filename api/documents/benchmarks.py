"""The documents of the benchmark suite. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.documents.base import Document, OpenDocument, derive, fill
from mesh.benchmarks import NAMES, BenchRun
from mesh.node_api import API_PREFIX

_PATH = f"{API_PREFIX}/benchmarks/realworld"


class FigureDoc(Document, frozen=True, kw_only=True):
    """A measured figure: the median of several repetitions, and its confidence interval."""

    unit: str
    median: float
    low: float
    high: float
    spread: float
    """width of the interval, as a share of the median"""
    samples: list[float]
    higher_is_better: bool = True


class OutcomeDoc(OpenDocument, frozen=True, kw_only=True):
    """The outcome of a benchmark on a node."""

    node: str
    state: str
    """ok, wrong answer, missing library, failed or cancelled"""
    at: float
    """Unix seconds"""
    reason: str
    headline: str
    """the name of the figure that stands for the benchmark"""
    figures: dict[str, FigureDoc]
    quick: bool = False


class BenchmarkDoc(Document, frozen=True):
    """A benchmark of the suite."""

    name: str
    title: str
    last: OutcomeDoc | Literal["never run"]
    nodes: list[OutcomeDoc]
    """the latest outcome of each node, newest first"""


class BenchmarksDoc(Document, frozen=True):
    """The benchmark suite."""

    benchmarks: list[BenchmarkDoc]


class RunLinks(Document, frozen=True):
    """The paths of a run."""

    status: str
    cancel: str
    results: str


BenchRunDoc = derive(
    "BenchRunDoc",
    BenchRun,
    without=("runner",),
    more={"progress": Annotated[float, Meta(ge=0, le=1)], "links": RunLinks},
)


def run_links(run: str) -> RunLinks:
    """The paths of a run."""
    path = f"{_PATH}/runs/{run}"
    return RunLinks(status=path, cancel=path, results=_PATH)


def bench_run(run: BenchRun) -> Struct:
    """BenchRunDoc"""
    progress = 1.0 if run.state == "done" else run.done / run.total if run.total else 0.0
    return fill(BenchRunDoc, run, progress=progress, links=run_links(run.id))


def benchmark(name: str, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """BenchmarkDoc as plain data. `outcomes`: the outcomes that nodes stored, newest first."""
    shown = [{field: outcome.get(field) for field in OutcomeDoc.__struct_fields__} for outcome in outcomes]
    return {"name": name, "title": NAMES[name], "last": shown[0] if shown else "never run", "nodes": shown}
