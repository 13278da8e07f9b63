"""The eight benchmarks: the kind each one runs, its fixed input, and the check of its answer.

A full run repeats work of several seconds on two cores, a quick run work of about half a second. Inputs are generated
from a seed or by the kind itself, so that a later run measures the same work.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bench.suite.inputs import with_photograph
from bench.suite.model import Benchmark, Figure, Part
from mesh.benchmarks import NAMES

Result = dict[str, Any]


def passed(payload: Result, result: Result) -> str:
    """The kind has compared its residual with a bound."""
    return "" if result.get("passed") is True else f"the residual {result.get('residual')} is too large"


def all_answers(payload: Result, result: Result) -> str:
    """All 22 queries ran, and each answer is the reference answer of TPC-H."""
    queries = result.get("queries", ())
    wrong = [query["query"] for query in queries if not query.get("checked")]
    return f"{len(queries)} of 22 queries ran" if len(queries) != 22 else f"not checked: {wrong}" if wrong else ""


def lowest_hash(payload: Result, result: Result) -> str:
    """Every nonce was tried, and hashlib confirms the lowest hash."""
    from mesh.kinds.table import validate

    if result["hashes"] != payload["nonce_count"]:
        return f"it tried {result['hashes']} of {payload['nonce_count']} nonces"
    header = validate("crypto_mining", payload).header  # pyrefly: ignore[missing-attribute]  declared by that kind only
    once = hashlib.sha256(header + int(result["best_nonce"]).to_bytes(4, "little")).digest()
    right = hashlib.sha256(once).digest()[::-1].hex()
    return "" if right == result["best_hash_hex"] else f"hashlib gives {right} for nonce {result['best_nonce']}"


def every_frame(payload: Result, result: Result) -> str:
    """All frames were encoded, into more than an empty file."""
    frames = round(payload["seconds"] * 30)
    if result["frames"] != frames:
        return f"{result['frames']} of {frames} frames were encoded"
    return "" if result["bytes"] > 1000 else f"the file has {result['bytes']} bytes"


def chain_size(payload: Result, result: Result) -> str:
    """The picture has the size that the operations produce."""
    shape = (result["width"], result["height"])
    return "" if shape == (640, 1024) else f"the picture is {shape[0]} x {shape[1]}, not 640 x 1024"


#: The "full cycle" of pillow-perf (testsuite/cases/cv2_full_cycle.py): rotate by 90 degrees, scale to 0.4, Gaussian
#: blur of 21 pixels, quality 85.
_CHAIN = [
    {"op": "rotate", "angle": 90},
    {"op": "resize", "width": 640, "height": 1024, "keep_aspect": False},
    {"op": "blur", "radius": 10},
]
_PICTURE = {"image": {"width": 2560, "height": 1600, "seed": 7}, "operations": _CHAIN, "format": "jpeg", "quality": 85}
_MPX = 2560 * 1600 / 1e6


_COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,"


def counts_on(payload: Result, result: Result) -> str:
    """The bundled model continues to count, for the requested number of tokens."""
    if result["weights"] != "trained":
        return f"the weights are {result['weights']}"
    if result["completion_tokens"] != payload["max_tokens"]:
        return f"{result['completion_tokens']} of {payload['max_tokens']} tokens were generated"
    return "" if result["text"].startswith(" 12, 13, 14,") else f"the text continues with {result['text'][:40]!r}"


def _language(tokens: int) -> Result:
    return {"prompt": _COUNTING, "raw": True, "max_tokens": tokens, "temperature": 0.0}


def no_errors(payload: Result, result: Result) -> str:
    """Every answer had the right status and bytes. The facts say whether the load generator was the limit."""
    if result["error_count"]:
        return f"{result['error_count']} of {result['requests']} requests failed: {result['errors']}"
    return ""


def learns(payload: Result, result: Result) -> str:
    """The loss is finite, and fell where there were enough steps to tell."""
    if result["loss_fell"] is False or (payload["model"] == "mlp" and result["loss_fell"] is not True):
        return result["loss_words"]
    return "" if result["loss_last"] < 1e6 else f"the loss is {result['loss_last']}"


def _training(name: str, figure: Figure, full: Result, quick: Result) -> Part:
    without = {"weights": False}  # half a gigabyte for GPT-2, of which no figure speaks
    return Part(name, "ml_training", full | without, quick | without, (figure,), verify=learns)


def _science(name: str, full: Result, quick: Result) -> Part:
    return Part(name, "scientific_computing", full, quick, (Figure(name, "GFLOPS", ("gflops",)),), verify=passed)


def _video(name: str, full: Result, quick: Result) -> Part:
    return Part(
        name, f"video_encode_{name}", full, quick, (Figure(f"video_{name}", "frames/s", ("fps",)),), verify=every_frame
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "llm_inference",
            NAMES["llm_inference"],
            (
                Part(
                    "smollm2",
                    "llm_inference",
                    _language(128),
                    _language(32),
                    (
                        Figure("llm_decode", "tokens/s", ("decode_tokens_per_s",)),
                        Figure("llm_prefill", "tokens/s", ("prefill_tokens_per_s",)),
                        Figure("llm_bandwidth", "GB/s of weights", ("weights_read_gb_per_s",)),
                    ),
                    verify=counts_on,
                ),
            ),
        ),
        Benchmark(
            "image_processing",
            NAMES["image_processing"],
            (
                Part(
                    "chain",
                    "image_processing",
                    _PICTURE,
                    _PICTURE,
                    (Figure("jpeg_chain", "Mpx/s", ("ran_s",), amount=_MPX),),
                    make=with_photograph,
                    verify=chain_size,
                ),
            ),
        ),
        Benchmark(
            "video_encoding",
            NAMES["video_encoding"],
            (
                _video("h264", {"resolution": "1080p", "seconds": 2.0}, {"resolution": "720p", "seconds": 0.5}),
                _video("h265", {"resolution": "1080p", "seconds": 1.0}, {"resolution": "720p", "seconds": 0.2}),
            ),
        ),
        Benchmark(
            "database_ops",
            NAMES["database_ops"],
            (
                Part(
                    "tpch",
                    "database_ops",
                    {"scale_factor": 0.1, "streams": 2},
                    {"scale_factor": 0.01, "streams": 2},
                    (
                        Figure("tpch_power", "power@size", ("power",)),
                        Figure("tpch_throughput", "throughput@size", ("throughput",)),
                        Figure("tpch_queries", "queries/s", ("queries_per_s",)),
                    ),
                    verify=all_answers,
                ),
            ),
        ),
        Benchmark(
            "crypto_mining",
            NAMES["crypto_mining"],
            (
                Part(
                    "sha256d",
                    "crypto_mining",
                    {"nonce_count": 100_000_000, "target_bits": 200},
                    {"nonce_count": 20_000_000, "target_bits": 200},
                    (Figure("sha256d", "MH/s", ("hash_rate_hs",), scale=1e-6),),
                    verify=lowest_hash,
                ),
            ),
        ),
        Benchmark(
            "scientific_computing",
            NAMES["scientific_computing"],
            (
                _science("linpack", {"operation": "linpack", "n": 5000}, {"operation": "linpack", "n": 2500}),
                _science("dgemm", {"operation": "dgemm", "n": 4000}, {"operation": "dgemm", "n": 2000}),
                _science(
                    "fft",
                    {"operation": "fft", "dimensions": 2, "n": 1024, "batch": 4},
                    {"operation": "fft", "dimensions": 2, "n": 1024},
                ),
            ),
        ),
        Benchmark(
            "web_server_load",
            NAMES["web_server_load"],
            (
                Part(
                    "closed",
                    "web_server_load",
                    {"seconds": 3.0},
                    {"seconds": 0.5},
                    (
                        Figure("web_closed", "requests/s", ("requests_per_s",)),
                        Figure("web_closed_p99", "ms", ("latency_ms", "p99"), higher_is_better=False),
                    ),
                    verify=no_errors,
                ),
                Part(
                    "open",
                    "web_server_load",
                    {"mode": "open", "rate_per_s": 1000, "seconds": 3.0},
                    {"mode": "open", "rate_per_s": 1000, "seconds": 0.5},
                    (
                        Figure("web_open_p50", "ms", ("latency_ms", "p50"), higher_is_better=False),
                        Figure("web_open_p99", "ms", ("latency_ms", "p99"), higher_is_better=False),
                    ),
                    verify=no_errors,
                ),
            ),
        ),
        Benchmark(
            "ml_training",
            NAMES["ml_training"],
            (
                _training(
                    "resnet50",
                    Figure("resnet50_train", "images/s", ("images_per_s",)),
                    {"model": "resnet50", "batch": 8, "steps": 4},
                    {"model": "resnet50", "batch": 2, "steps": 1},
                ),
                _training(
                    "gpt2",
                    Figure("gpt2_train", "tokens/s", ("tokens_per_s",)),
                    {"model": "transformer", "batch": 1, "context": 512, "steps": 2},
                    {"model": "transformer", "batch": 1, "context": 128, "steps": 1, "layers": 2},
                ),
                _training(
                    "mlp", Figure("mlp_train", "samples/s", ("samples_per_s",)), {"model": "mlp"}, {"model": "mlp"}
                ),
            ),
        ),
    )
}
