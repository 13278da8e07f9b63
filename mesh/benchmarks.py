"""What the mesh keeps of benchmarks: each node's latest outcomes with history, and runs that are under way.

The suite itself is `bench/`, which nothing else imports: a node starts it as a program. Outcomes are its JSON lines.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from mesh import subjects
from mesh.errors import NotFound

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: name -> title, in the order in which they are shown.
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
#: A run's state is kept this long after its last change.
RUN_TTL_S = 24 * 3600
UNDER_WAY = frozenset({"starting", "running"})


class BenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite that a node was asked for."""

    id: str
    state: str = "starting"
    """starting, running, done, failed or cancelled."""
    names: tuple[str, ...]
    nodes: tuple[str, ...]
    """Ids of the nodes that are measured, one after the other."""
    quick: bool = False
    runner: str = ""
    """The node that drives it."""
    began_at: float = 0.0
    ended_at: float = 0.0
    total: int = 0
    """Benchmarks times nodes."""
    done: int = 0
    benchmark: str = ""
    node: str = ""
    repetition: int = 0
    last: str = ""
    """The latest figure, in words."""
    reason: str = ""
    """Why it failed."""

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.state in UNDER_WAY


_DECODER = msgspec.json.Decoder(BenchRun)


async def put_run(bus: Bus, run: BenchRun) -> None:
    """Write where a run is. Raises: BusUnavailable."""
    await bus.kv(subjects.KV_BENCH).put(subjects.bench_run(run.id), msgspec.json.encode(run), ttl_s=RUN_TTL_S)


async def read_run(bus: Bus, run: str) -> BenchRun:
    """Raises: NotFound, BusUnavailable."""
    entry = await bus.kv(subjects.KV_BENCH).get(subjects.bench_run(run))
    if entry is None:
        raise NotFound(f"there is no benchmark run {run}; runs are remembered for a day")
    return _DECODER.decode(entry.value)


async def keep(bus: Bus, outcome: dict[str, Any]) -> None:
    """Keep one outcome as its node's latest of that benchmark. Raises: BusUnavailable."""
    key = subjects.bench_outcome(outcome["benchmark"], outcome["node"])
    await bus.kv(subjects.KV_BENCH).put(key, json.dumps(outcome).encode())


async def latest(bus: Bus) -> dict[str, list[dict[str, Any]]]:
    """benchmark -> the latest outcome of each node, the newest first. Raises: BusUnavailable."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in await bus.kv(subjects.KV_BENCH).entries(subjects.BENCH_OUTCOMES):
        outcome = json.loads(entry.value)
        found.setdefault(outcome["benchmark"], []).append(outcome)
    return {name: sorted(outcomes, key=lambda one: -one["at"]) for name, outcomes in found.items()}


async def history(bus: Bus, benchmark: str, node: str) -> list[dict[str, Any]]:
    """All kept outcomes of one benchmark on one node, the oldest first. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_BENCH).history(subjects.bench_outcome(benchmark, node))
    return [json.loads(entry.value) for entry in entries]
