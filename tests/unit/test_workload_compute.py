"""crypto_mining, scientific_computing and echo: right results, checks that catch wrong ones, faults on request."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.crypto_mining import GENESIS_HEADER_HEX, GENESIS_NONCE, compact_problem
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, Output, load
from node.workloads import crypto_mining
from node.workloads.echo import filler
from node.workloads.mining import sha256_lane
from node.workloads.scientific_computing import (
    WrongResult,
    check,
    fft_residual,
    lu_residual,
    product_residual,
)

ROOT = Path(__file__).resolve().parents[2]
GENESIS_HASH = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"


@pytest.fixture
def run(tmp_path):
    def call(kind, payload=None, cores=1, **more):
        return load(kind)(validate(kind, payload), Context(cores=cores, folder=tmp_path, **more))

    return call


# --- crypto_mining ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 3])
def test_genesis_nonce_is_found(run, cores):
    result = run(
        "crypto_mining", {"block": "genesis", "nonce_start": GENESIS_NONCE - 15_000, "nonce_count": 40_000}, cores
    )
    assert (result["found"], result["nonce"], result["hash_hex"]) == (True, GENESIS_NONCE, GENESIS_HASH)
    assert result["cores"] == cores and result["hash_rate_hs"] > 0


def test_range_without_a_solution_is_searched_completely_and_alike_on_any_number_of_cores(run):
    payload = {"header_hex": GENESIS_HEADER_HEX, "nonce_start": 5, "nonce_count": 30_000, "target_bits": 60}
    one_core, two_cores = (run("crypto_mining", payload, cores) for cores in (1, 2))
    assert one_core["hashes"] == two_cores["hashes"] == 30_000
    assert not one_core["found"] and one_core["nonce"] is None
    assert one_core["best_hash_hex"] == two_cores["best_hash_hex"] and one_core["best_nonce"] == two_cores["best_nonce"]


def test_easy_target_gives_the_lowest_nonce_on_any_number_of_cores(run):
    payload = {"target_bits": 11, "nonce_count": 60_000}
    results = [run("crypto_mining", payload, cores) for cores in (1, 2, 3)]
    assert {result["nonce"] for result in results} == {results[0]["nonce"]}
    assert all(result["hash_hex"].startswith("00") for result in results)


def test_time_limit_ends_a_search_that_reports_its_progress(run, monkeypatch):
    monkeypatch.setattr(crypto_mining, "_PROGRESS_AFTER_S", 0.1)
    updates = []
    payload = {"algorithm": "sha-256", "seconds": 0.4, "target_bits": 256}
    result = run("crypto_mining", payload, progress=lambda fraction, note="": updates.append((fraction, note)))
    assert 0.4 <= result["seconds"] < 20 and result["hashes"] > 0
    assert updates and all(0 <= fraction <= 1 and "MH/s" in note for fraction, note in updates)


def test_a_lane_ends_when_its_parent_has_ended():
    command = [sys.executable, "-I", "-S", sha256_lane.__file__, GENESIS_HEADER_HEX, "0"]
    lane = subprocess.run(command, input="0 10\n", capture_output=True, text=True, timeout=30, check=True)
    assert lane.stdout.split()[:2] == ["10", "-1"]


def test_wrong_mining_payloads_are_named():
    for payload, field in (
        ({"header_hex": "00"}, "payload.header_hex"),
        ({"header_hex": "zz"}, "payload.header_hex"),
        ({"block": "genesis", "header_hex": GENESIS_HEADER_HEX}, "payload.header_hex"),
        ({"target_hex": "xyz"}, "payload.target_hex"),
        ({"target_hex": "ff", "target_bits": 8}, "payload.target_hex"),
        ({"target_hex": "000"}, "payload.target_hex"),
        ({"header_hex": "00" * 72 + "563412ff"}, "payload.header_hex"),
        ({"header_hex": "00" * 76}, "payload.header_hex"),
        ({"header_hex": GENESIS_HEADER_HEX, "nonce_start": 1 << 32}, "payload.nonce_start"),
        ({"nonce_count": 0}, "payload.nonce_count"),
        ({"seconds": 0}, "payload.seconds"),
        ({"algorithm": "scrypt"}, "payload.algorithm"),
    ):
        with pytest.raises(BadInput) as caught:
            validate("crypto_mining", payload)
        assert [fault.field for fault in caught.value.faults] == [field]


@pytest.mark.parametrize(
    ("compact", "problem"),
    [
        (0x00000000, "is zero"), (0x00123456, "is zero"), (0x01003456, "is zero"), (0x04800000, "is zero"),
        (0x02800056, "is zero"), (0x01FEDCBA, "is negative"), (0x04923456, "is negative"),
        (0x01123456, ""), (0x05009234, ""), (0x1D00FFFF, ""), (0x207FFFFF, ""), (0x20123456, ""),
        (0x2100FFFF, ""), (0x220000FF, ""), (0x2101FFFF, "has more than 256 bits"),
        (0x220001FF, "has more than 256 bits"), (0xFF123456, "has more than 256 bits"),
    ],
    ids=lambda value: f"{value:#x}" if isinstance(value, int) else value,
)  # fmt: skip
def test_compact_targets_are_refused_as_in_bitcoin_core(compact, problem):
    """Most of these values are from Bitcoin Core's own arith_uint256_tests."""
    assert compact_problem(compact) == problem


# --- scientific_computing --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", ["lu_solve", "matmul", "fft"])
def test_results_pass_their_check(run, operation, dtype):
    for n in (2, 129):
        payload = {"operation": operation, "dtype": dtype, "n": n, "batch": 3, "repeat": 2}
        result = run("scientific_computing", payload, 2)
        assert result["passed"] and 0 <= result["residual"] < 16
        assert result["gflops"] > 0 and result["n"] == n


def test_checks_catch_wrong_results():
    random = np.random.default_rng(1)
    left, right, b = random.random((200, 200)), random.random((200, 200)), random.random(200)
    vectors = random.integers(0, 2, (200, 8)).astype(float)
    product, solved = left @ right, np.linalg.solve(left, b)
    check(product_residual(left, right, product, vectors), "matmul")
    check(lu_residual(left, solved, b), "lu_solve")
    product[17, 23] += 0.001
    solved[5] *= 1.000001
    signal = random.random((2, 256)) + 0j
    spectrum = np.fft.fft(signal)
    check(fft_residual(signal, spectrum, np.fft.ifft(spectrum)), "fft")
    for residual in (
        product_residual(left, right, product, np.ones((200, 1))),
        lu_residual(left, solved, b),
        fft_residual(signal, signal, signal),
        fft_residual(signal, spectrum, np.fft.ifft(spectrum) + 1e-9),
        float("nan"),
    ):
        with pytest.raises(WrongResult, match="failed its check"):
            check(residual, "it")


def test_sizes_that_would_not_fit_in_memory_are_refused():
    for payload in ({"n": 100_000}, {"operation": "fft", "n": 1 << 20, "batch": 4096}, {"n": 1}):
        with pytest.raises(BadInput) as caught:
            validate("scientific_computing", payload)
        assert [fault.field for fault in caught.value.faults] == ["payload.n"]


def test_the_number_of_threads_is_that_of_the_task(run, monkeypatch):
    import threadpoolctl

    seen = []
    real = np.linalg.solve

    def solve(*arguments):
        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        seen.append({pool["num_threads"] for pool in pools})
        return real(*arguments)

    monkeypatch.setattr(np.linalg, "solve", solve)
    for cores in (1, 2, 1):
        run("scientific_computing", {"n": 50}, cores)
    assert seen == [{1}, {2}, {1}]


# --- echo ------------------------------------------------------------------------------------------


def test_echo_returns_values_and_bytes(run):
    value = {"a": [1, 2.5, None, "é", b"bytes"]}
    assert run("echo", {"value": value}) == {"value": value}
    assert run("echo") == {"value": None}
    output = run("echo", {"value": 1, "size_bytes": 3_000_000, "seed": 7})
    assert isinstance(output, Output) and output.data == filler(7, 3_000_000)
    assert run("echo", {"size_bytes": 100, "seed": 8}).data != output.data[:100]


def test_echo_sleeps_and_reports_only_long_sleeps(run):
    updates = []
    run("echo", {"sleep_s": 0.01}, progress=lambda *args: updates.append(args))
    assert updates == []
    run("echo", {"sleep_s": 2.05}, progress=lambda *args: updates.append(args))
    assert [fraction for fraction, _ in updates] == sorted(fraction for fraction, _ in updates) and len(updates) >= 2


@pytest.mark.parametrize("order", [{"fail": "x"}, {"crash": "exit"}, {"leak_mb": 1}, {"hang": True}])
def test_faults_are_refused_unless_the_node_allows_them(run, order):
    with pytest.raises(InputFault, match="--fault-kinds") as caught:
        run("echo", order)
    assert caught.value.field in order


def test_faults_are_injected_on_request(run):
    with pytest.raises(RuntimeError, match="as told"):
        run("echo", {"fail": "as told"}, fault_kinds=True)
    assert run("echo", {"leak_mb": 2, "value": 1}, fault_kinds=True) == {"value": 1}


@pytest.mark.parametrize(("how", "status"), [("exit", 70), ("segv", -11), ("kill", -9)])
def test_crashes_end_the_process(how, status):
    script = (
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.context import Context, load\n"
        f"load('echo')(validate('echo', {{'crash': '{how}'}}), Context(1, Path('.'), fault_kinds=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == status
