"""The mesh's overhead for tasks of a second or more: CPU seconds of a task, and of the same call without a mesh."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness.environment import describe, machine_line
from bench.harness.measure import BenchFailed, median_interval
from bench.harness.node_process import NodeProcess
from bench.harness.photograph import photograph
from mesh.client import Mesh

SLOTS = 2
#: Tasks that take about a second on two cores. A kind with an entry here is measured.
PAYLOADS: dict[str, dict[str, Any]] = {
    "crypto_mining": {"nonce_count": 80_000_000, "target_bits": 200},
    "database_ops": {"scale_factor": 0.1, "streams": 0},
    "scientific_computing": {"operation": "linpack", "n": 4500},
    "video_encode_h264": {"resolution": "720p", "seconds": 4, "preset": "veryfast", "encoder": "software"},
    "video_encode_h265": {"resolution": "720p", "seconds": 2, "preset": "veryfast", "encoder": "software"},
    "video_encode_av1": {"resolution": "720p", "seconds": 4, "preset": "veryfast", "encoder": "software"},
    "llm_inference": {"prompt": "Once upon a time", "raw": True, "max_tokens": 160, "context": 512},
    "ml_training": {"model": "mlp", "steps": 800, "checkpoint_every_s": 0, "weights": False},
    "image_processing": {"operations": [{"op": "blur", "method": "bilateral", "radius": 7}], "format": "jpeg"},
}


#: Kinds with a file: its field, and the function that makes it. The mesh gets it as a blob, a new one for each task.
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {"image_processing": ("image", photograph)}


def run(quick: bool, pairs: int | None, profile: str | None, kinds: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns for each kind the median of mesh / direct and its interval. Raises: BenchFailed."""
    if profile is not None:
        raise BenchFailed("overhead can't be profiled: use the case mesh")
    if unknown := set(kinds or ()) - set(PAYLOADS):
        raise BenchFailed(f"overhead measures {', '.join(PAYLOADS)}, not {', '.join(sorted(unknown))}")
    document = {"case": "overhead", "quick": quick, "slots": SLOTS, **describe()}
    measured = asyncio.run(_measure(kinds or list(PAYLOADS), pairs or (3 if quick else 9)))
    return document | {"kinds": measured}


async def _measure(kinds: list[str], pairs: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, _direct(Path(folder) / "direct") as direct:
        async with NodeProcess(Path(folder) / "node", SLOTS) as node, Mesh(node.api) as mesh:
            for kind in kinds:
                found[kind] = await _pairs(kind, pairs, mesh, node, direct)
    return found


async def _pairs(kind: str, pairs: int, mesh: Mesh, node: NodeProcess, direct: subprocess.Popen[str]) -> dict[str, Any]:
    """Alternate mesh and direct calls, after a first pair that loads the libraries and does not count."""
    rounds: list[dict[str, float]] = []
    for number in range(pairs + 1):
        through, seconds, keys = await _through_mesh(kind, mesh, node)
        alone = await asyncio.to_thread(_ask, direct, kind, keys)
        if number:
            figures = {"mesh_cpu_s": through, "direct_cpu_s": alone, "wall_s": seconds}
            rounds.append({name: round(figure, 4) for name, figure in figures.items()})
            print(f"bench: {kind} {number}: {rounds[-1]}", file=sys.stderr, flush=True)
    ratios = [pair["mesh_cpu_s"] / pair["direct_cpu_s"] for pair in rounds]
    low, high, confidence = median_interval(ratios)
    return {
        "payload": PAYLOADS[kind],
        "ratio": round(median(ratios), 4),
        "interval": [round(low, 4), round(high, 4)],
        "confidence": round(confidence, 3),
        "mesh_cpu_s": median(pair["mesh_cpu_s"] for pair in rounds),
        "direct_cpu_s": median(pair["direct_cpu_s"] for pair in rounds),
        "wall_s": median(pair["wall_s"] for pair in rounds),
        "rounds": rounds,
    }


async def _through_mesh(kind: str, mesh: Mesh, node: NodeProcess) -> tuple[float, float, list[str]]:
    """(CPU seconds of node, bus and this process; wall-clock seconds; the form of the result)."""
    file = FILES[kind][1]() if kind in FILES else b""
    before, own, began = sum(node.cpu_s().values()), time.process_time(), time.perf_counter()
    payload = PAYLOADS[kind]
    if file:
        payload = payload | {FILES[kind][0]: {"blob": (await mesh.put_blob(file)).blob}}
    result = await mesh.submit(kind, payload, wait_s=120)
    seconds = time.perf_counter() - began
    used = sum(node.cpu_s().values()) - before + time.process_time() - own
    return used, seconds, form(result)


def form(result: Any) -> list[str]:
    """What two results of the same work must have in common: their fields, or all of their bytes."""
    return [hashlib.sha256(result).hexdigest()] if isinstance(result, bytes) else sorted(result)


@contextmanager
def _direct(folder: Path) -> Generator[subprocess.Popen[str]]:
    """A process that only does the work, on request; it keeps its libraries loaded, as a worker does."""
    folder.mkdir()
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-P", "-m", "bench.cases.overhead"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _ask(direct: subprocess.Popen[str], kind: str, keys: list[str]) -> float:
    """CPU seconds of one direct call. Raises: BenchFailed when its result has another form."""
    assert direct.stdin is not None and direct.stdout is not None
    direct.stdin.write(kind + "\n")
    line = direct.stdout.readline()
    if not line:
        raise BenchFailed(f"{kind} failed when it was called directly")
    answer = json.loads(line)
    if answer["keys"] != keys:
        raise BenchFailed(f"{kind} answered {answer['keys']} directly, and {keys} through the mesh")
    return float(answer["cpu_s"])


def cores_of(kind: str) -> int:
    """The cores that a task of that kind gets on the node under test."""
    from mesh.kinds.table import find

    cores = find(kind).resources.cores
    return SLOTS if cores == "all" else cores


def main() -> None:
    """The direct process: reads one kind per line on stdin, writes one answer per line on stdout."""
    import shutil

    from mesh.kinds.table import validate
    from node.executor.context import Context, Output, load

    for line in sys.stdin:
        kind = line.strip()
        folder, file = Path.cwd() / "task", Path.cwd() / "file"
        folder.mkdir()
        data = PAYLOADS[kind]
        if kind in FILES:
            file.write_bytes(FILES[kind][1]())
            data = data | {FILES[kind][0]: {"blob": "b-1"}}
        payload, work = validate(kind, data), load(kind)
        before = os.times()
        result = work(payload, Context(cores_of(kind), folder, {"b-1": file}))
        if isinstance(result, Output):
            result = result.data if isinstance(result.data, bytes) else result.data.read_bytes()
        after = os.times()
        answer = {"cpu_s": sum(after[:4]) - sum(before[:4]), "keys": form(result)}
        shutil.rmtree(folder)
        print(json.dumps(answer), flush=True)


def table(document: dict[str, Any]) -> str:
    """The document as text."""
    lines = [
        f"{kind:<22}{measured['ratio']:>8.3f}   between {measured['interval'][0]:.3f} and "
        f"{measured['interval'][1]:.3f} ({measured['confidence']:.0%})   {measured['mesh_cpu_s']:.2f} and "
        f"{measured['direct_cpu_s']:.2f} CPU s"
        for kind, measured in document["kinds"].items()
    ]
    return "\n".join(
        [
            "CPU seconds through the mesh / of the direct call, median over pairs",
            *lines,
            machine_line(document),
        ]
    )


if __name__ == "__main__":
    main()
