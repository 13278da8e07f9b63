"""Benchmark records of the mesh: the outcomes of each node with their history, and the runs.

The suite itself is `bench/`, which nothing else imports: a node starts it as a program. An outcome is one of its JSON
lines.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from mesh import subjects
from mesh.decoding import Decoder, readable, readable_of
from mesh.errors import NotFound

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: Benchmark -> title, in display order.
NAMES = {
    "llm_inference": "Language model: prefill and decode",
    "image_processing": "JPEG: load, turn, resize, blur, save",
    "video_encoding": "H.264 and H.265 of a moving test picture",
    "database_ops": "TPC-H style queries in DuckDB",
    "crypto_mining": "SHA-256d over block headers",
    "scientific_computing": "LINPACK, matrix product, Fourier transform",
    "web_server_load": "HTTP server under closed and open load",
    "ml_training": "Training: ResNet-50 and a transformer",
}
#: The record of a run expires this long after its last change, seconds.
RUN_TTL_S = 24 * 3600
UNDER_WAY = frozenset({"starting", "running"})


class BenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite."""

    id: str
    state: str = "starting"
    """starting, running, done, failed or cancelled."""
    names: tuple[str, ...]
    nodes: tuple[str, ...]
    """Ids of the nodes to measure, one after the other."""
    quick: bool = False
    runner: str = ""
    """Id of the node that controls the run."""
    began_at: float = 0.0
    ended_at: float = 0.0
    total: int = 0
    """Number of benchmarks times number of nodes."""
    done: int = 0
    benchmark: str = ""
    """The benchmark that runs now."""
    node: str = ""
    """Id of the node that runs it."""
    repetition: int = 0
    last: str = ""
    """The latest figure, as text."""
    reason: str = ""
    """Why the run failed."""

    @property
    def under_way(self) -> bool:
        """Whether the run has not ended."""
        return self.state in UNDER_WAY


def _outcome_fault(outcome: dict[str, Any]) -> str:
    named = isinstance(outcome.get("benchmark"), str) and isinstance(outcome.get("node"), str)
    return "" if named and isinstance(outcome.get("at"), (int, float)) else "it does not say what was measured when"


_decode_run: Decoder[BenchRun] = Decoder(BenchRun, "benchmark run", json=True)
_decode_outcome: Decoder[dict[str, Any]] = Decoder(dict[str, Any], "benchmark outcome", _outcome_fault, json=True)


async def put_run(bus: Bus, run: BenchRun) -> None:
    """Write the state of a run. Raises: BusUnavailable."""
    await bus.kv(subjects.KV_BENCH).put(subjects.bench_run(run.id), msgspec.json.encode(run), ttl_s=RUN_TTL_S)


async def read_run(bus: Bus, run: str) -> BenchRun:
    """The state of a run. Raises: NotFound, BusUnavailable."""
    entry = await bus.kv(subjects.KV_BENCH).get(subjects.bench_run(run))
    found = readable(_decode_run, entry)
    if found is None:
        raise NotFound(f"there is no benchmark run {run}; runs are remembered for a day")
    return found


async def store_outcome(bus: Bus, outcome: dict[str, Any]) -> None:
    """Store one outcome as the latest of its node and benchmark. Raises: BusUnavailable."""
    key = subjects.bench_outcome(outcome["benchmark"], outcome["node"])
    await bus.kv(subjects.KV_BENCH).put(key, json.dumps(outcome).encode())


async def latest(bus: Bus) -> dict[str, list[dict[str, Any]]]:
    """Benchmark -> the latest outcome of each node, newest first. Raises: BusUnavailable."""
    found: dict[str, list[dict[str, Any]]] = {}
    entries = await bus.kv(subjects.KV_BENCH).entries(subjects.BENCH_OUTCOMES)
    for outcome in readable_of(_decode_outcome, entries):
        found.setdefault(outcome["benchmark"], []).append(outcome)
    return {name: sorted(outcomes, key=lambda outcome: -outcome["at"]) for name, outcomes in found.items()}


async def history(bus: Bus, benchmark: str, node: str) -> list[dict[str, Any]]:
    """All stored outcomes of one benchmark on one node, oldest first. Raises: BusUnavailable, ApiError."""
    entries = await bus.kv(subjects.KV_BENCH).history(subjects.bench_outcome(benchmark, node))
    return readable_of(_decode_outcome, entries)
