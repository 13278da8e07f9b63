"""The eight benchmarks: what each one runs, on which fixed input, and when its answer is right.

A full run repeats work of about two to six seconds on two cores, a quick one of about half a second. Inputs are fixed
by seed or made by the kind itself, so that a run next year measures the same work.
"""

from __future__ import annotations

from typing import Any

from bench.suite.model import Benchmark, Figure, Part


def _passed(result: dict[str, Any]) -> str:
    return "" if result.get("passed") is True else f"its residual is {result.get('residual')}: too large"


def _all_checked(result: dict[str, Any]) -> str:
    wrong = [one["query"] for one in result.get("queries", ()) if not one.get("checked")]
    count = len(result.get("queries", ()))
    return f"{count} of 22 queries ran" if count != 22 else f"queries {wrong} gave another answer" if wrong else ""


def _best_hash(nonces: int) -> Any:
    """A search without a find names the lowest hash of its range: hashlib must say the same of that nonce."""

    def verify(result: dict[str, Any]) -> str:
        import hashlib

        from mesh.kinds.table import validate

        header = validate("crypto_mining", {"nonce_count": 1}).header
        once = hashlib.sha256(header + int(result["best_nonce"]).to_bytes(4, "little")).digest()
        right = hashlib.sha256(once).digest()[::-1].hex()
        if result["hashes"] != nonces:
            return f"it tried {result['hashes']} of {nonces} nonces"
        return "" if right == result["best_hash_hex"] else f"hashlib gives {right} for nonce {result['best_nonce']}"

    return verify


BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            "crypto_mining",
            "SHA-256d over block headers",
            (
                Part(
                    "sha256d",
                    "crypto_mining",
                    {"nonce_count": 100_000_000, "target_bits": 200},
                    {"nonce_count": 20_000_000, "target_bits": 200},
                    (Figure("sha256d", "MH/s", ("hash_rate_hs",), scale=1e-6),),
                    verify=_best_hash(100_000_000),
                ),
            ),
        ),
        Benchmark(
            "scientific_computing",
            "LINPACK, matrix products, Fourier transforms",
            (
                Part(
                    "linpack",
                    "scientific_computing",
                    {"operation": "linpack", "n": 6000},
                    {"operation": "linpack", "n": 3000},
                    (Figure("linpack", "GFLOPS", ("gflops",)),),
                    verify=_passed,
                ),
            ),
        ),
        Benchmark(
            "database_ops",
            "TPC-H style queries in DuckDB",
            (
                Part(
                    "tpch",
                    "database_ops",
                    {"scale_factor": 0.5},
                    {"scale_factor": 0.05},
                    (Figure("power", "queries/h at this scale", ("power",)),),
                    verify=_all_checked,
                ),
            ),
        ),
    )
}
