"""SHA-256d on one core: the kernels of `crypto_mining` beside a plain loop over hashlib."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.harness.environment import describe, machine_line
from bench.harness.measure import BenchFailed, spread
from mesh.kinds.crypto_mining import GENESIS_HEADER_HEX
from node.workloads.mining import sha256_lane, sha256_vector

#: Nonces per measurement: about a quarter of a second each.
LOOP_NONCES, LANE_NONCES, VECTOR_NONCES = 150_000, 250_000, 6_000_000


def loop(header: bytes, start: int, count: int) -> tuple[bytes, int]:
    """(the lowest hash, most significant byte first, its nonce), by two calls of hashlib per nonce."""
    sha256, best = hashlib.sha256, (b"\xff" * 33, 0)
    for nonce in range(start, start + count):
        digest = sha256(sha256(header + nonce.to_bytes(4, "little")).digest()).digest()
        if digest[31] <= best[0][0]:
            best = min(best, (digest[::-1], nonce))
    return best


def run(quick: bool, pairs: int | None, profile: str | None) -> dict[str, Any]:
    """Run the benchmark; returns MH per second of CPU time, and the ratio of each round. Raises: BenchFailed."""
    if profile is not None:
        raise BenchFailed("sha256 can't be profiled: it is a single loop")
    kernel = sha256_vector.kernel()
    if kernel is None:
        raise BenchFailed("llvmlite is not installed: pip install 'queztl[mining]'")
    header = bytes.fromhex(GENESIS_HEADER_HEX)[:76]
    document = {"case": "sha256", "quick": quick, "engine": kernel.name, **describe()}
    _compare(header, kernel)
    rounds: list[dict[str, float]] = []
    for number in range(pairs or (3 if quick else 9)):
        start = number * VECTOR_NONCES
        rounds.append(
            {
                "hashlib_mhs": _rate(lambda at=start: loop(header, at, LOOP_NONCES), LOOP_NONCES),
                "lane_mhs": _rate(lambda at=start: sha256_lane.scan(header, at, LANE_NONCES, 0), LANE_NONCES),
                "vector_mhs": _rate(lambda at=start: kernel.scan(header, at, VECTOR_NONCES, 0), VECTOR_NONCES),
            }
        )
        print(f"bench: round {number + 1}: {rounds[-1]}", file=sys.stderr, flush=True)
    ratios = sorted(rates["vector_mhs"] / rates["hashlib_mhs"] for rates in rounds)
    columns = {name: [rates[name] for rates in rounds] for name in rounds[0]}
    return document | {
        **{name: round(median(values), 3) for name, values in columns.items()},
        "ratio_to_hashlib": round(median(ratios), 2),
        "ratio_between": [round(ratios[0], 2), round(ratios[-1], 2)],
        "spread": {name: round(spread(values), 3) for name, values in columns.items()},
        "rounds": rounds,
    }


def _compare(header: bytes, kernel: sha256_vector.Kernel) -> None:
    """Raises: BenchFailed, when the three do not find the same hash."""
    best, nonce = loop(header, 0, LOOP_NONCES)
    for scan in (sha256_lane.scan, kernel.scan):
        if scan(header, 0, LOOP_NONCES, 0) != (LOOP_NONCES, -1, nonce, best):
            raise BenchFailed("the kernels don't agree with hashlib")


def _rate(work: Callable[[], object], nonces: int) -> float:
    began = time.thread_time()
    work()
    return round(nonces / (time.thread_time() - began) / 1e6, 3)


def table(document: dict[str, Any]) -> str:
    """The document as text."""
    spreads, between = document["spread"], document["ratio_between"]
    names = (("hashlib_mhs", "a loop over hashlib"), ("lane_mhs", "without LLVM"), ("vector_mhs", document["engine"]))
    lines = [f"{what:<28}{document[name]:>8.2f} MH/s per core   spread {spreads[name]:.0%}" for name, what in names]
    ratio = f"{document['ratio_to_hashlib']:>8.1f}   between {between[0]:.1f} and {between[1]:.1f}"
    return "\n".join(
        [
            *lines,
            f"{'ratio to the loop':<28}{ratio}",
            machine_line(document),
        ]
    )
