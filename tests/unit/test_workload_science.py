"""scientific_computing: each operation compared with SciPy or a formula, and checks that catch wrong results."""

import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.workloads.common import progress_ticker
from node.workloads.science import monte_carlo
from node.workloads.science import sparse as science_sparse
from node.workloads.scientific_computing import WrongResult, check, fft_residual

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    def call(payload, cores=2, **more):
        kind = "scientific_computing"
        return load(kind)(validate(kind, payload), Context(cores, tmp_path, **more))

    return call


def test_linpack_passes_the_residual_test_of_hpl(run):
    result = run({"operation": "linpack", "n": 600, "repeat": 2})
    assert (result["operation"], result["dtype"], result["passed"]) == ("linpack", "float64", True)
    assert 0 < result["residual"] < 16
    assert math.isclose(result["gflops"], (2 / 3 * 600**3 + 1.5 * 600**2) / result["seconds"] / 1e9, rel_tol=0.01)


@pytest.mark.parametrize(("operation", "dtype"), [("dgemm", "float64"), ("sgemm", "float32")])
def test_products_are_named_as_in_blas(run, operation, dtype):
    result = run({"operation": operation, "n": 150})
    assert (result["operation"], result["dtype"]) == (operation, dtype) and result["gflops"] > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_transforms_of_each_dimension_pass_their_check(run, dimensions, dtype):
    result = run({"operation": "fft", "n": 24, "dimensions": dimensions, "dtype": dtype, "batch": 2})
    assert (result["dimensions"], result["batch"]) == (dimensions, 2) and result["residual"] < 16


def test_a_transform_that_leaves_out_an_axis_is_wrong():
    from scipy import fft

    random = np.random.default_rng(1)
    signal = random.random((2, 16, 16)) + 1j * random.random((2, 16, 16))
    spectrum = fft.fftn(signal, axes=(1, 2))
    check(fft_residual(signal, spectrum, fft.ifftn(spectrum, axes=(1, 2))), "fft")
    one_axis = fft.fft(signal)
    with pytest.raises(WrongResult):
        check(fft_residual(signal, one_axis, fft.ifft(one_axis)), "fft")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_systems_are_solved(run, dtype):
    for n in (2, 60):
        result = run({"operation": "sparse_solve", "n": n, "dtype": dtype})
        assert result["passed"] and result["gflops"] > 0, result


def test_the_matrix_is_that_of_poisson_and_a_wrong_solution_is_detected():
    from scipy.sparse.linalg import splu

    side = 40
    matrix = science_sparse.laplacian(side)
    # A product of sines is an eigenvector; its eigenvalue is known.
    line = np.sin(np.pi * np.arange(1, side + 1) / (side + 1))
    wave = np.outer(line, line).ravel()
    eigenvalue = 4 - 4 * math.cos(math.pi / (side + 1))
    assert np.allclose(matrix @ wave, eigenvalue * wave, rtol=0, atol=1e-14)
    factors = splu(matrix)
    solved = factors.solve(eigenvalue * wave)
    assert science_sparse.residual(matrix, solved, eigenvalue * wave) < 16
    assert np.allclose(solved, wave)
    solved[7] += 1e-9
    with pytest.raises(WrongResult):
        check(science_sparse.residual(matrix, solved, eigenvalue * wave), "sparse_solve")


def test_the_operation_count_of_a_dense_factorization_matches_its_formula():
    from scipy import sparse
    from scipy.sparse.linalg import splu

    n = 30
    random = np.random.default_rng(3)
    factors = splu(sparse.csc_array(random.random((n, n)) + n * np.eye(n)), permc_spec="NATURAL", diag_pivot_thresh=0)
    exact = sum(2 * k * k + k for k in range(n)) + 2 * n * (n + 1)
    assert science_sparse.operations(factors.L, factors.U) == exact


def test_the_price_is_that_of_black_and_scholes_on_any_number_of_cores(run):
    payload = {"operation": "monte_carlo", "n": 3_000_000, "seed": 5}
    one_core, three_cores = run(payload, 1), run(payload, 3)
    assert (
        one_core["estimate"] == three_cores["estimate"] and one_core["standard_error"] == three_cores["standard_error"]
    )
    assert math.isclose(one_core["exact"], 7.1280646692617395) and one_core["off_by"] < 4
    assert one_core["samples_per_s"] > 0 and 0.006 < one_core["standard_error"] < 0.008


def test_an_estimate_that_is_off_is_not_returned(run, monkeypatch):
    real = monte_carlo.exact()
    monkeypatch.setattr(monte_carlo, "exact", lambda: real + 0.1)
    with pytest.raises(WrongResult, match="standard errors from"):
        run({"operation": "monte_carlo", "n": 3_000_000})
    assert monte_carlo.off_by(1.0, 0.0) == monte_carlo.off_by(1.0, math.nan) == math.inf


def test_wrong_payloads_are_named():
    for payload, field in (
        ({"operation": "dgemm", "dtype": "float32"}, "payload.dtype"),
        ({"operation": "linpack", "n": 10**9}, "payload.n"),
        ({"operation": "sparse_solve", "n": 5000}, "payload.n"),
        ({"operation": "monte_carlo", "n": 10**15}, "payload.n"),
        ({"operation": "fft", "dimensions": 3, "n": 1024}, "payload.n"),
        ({"operation": "fft", "dimensions": 3, "batch": 4096}, "payload.n"),
        ({"operation": "fft", "dimensions": 4}, "payload.dimensions"),
        ({"operation": "lu_solve", "n": float("nan")}, "payload.n"),
        ({"operation": "__import__"}, "payload.operation"),
    ):
        with pytest.raises(BadInput) as caught:
            validate("scientific_computing", payload)
        assert [fault.field for fault in caught.value.faults] == [field], payload


def test_a_long_call_without_updates_gets_estimated_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_ticker, "EVERY_S", 0.01)
    updates, enough = [], threading.Event()

    def progress(fraction, note=""):
        updates.append((fraction, note))
        if len(updates) > 5:
            enough.set()

    with progress_ticker.ticking(Context(1, tmp_path, progress=progress), "run 2 of 2", 0.5, 1.0, expected_s=0.01):
        assert enough.wait(30)
    fractions = [fraction for fraction, _ in updates]
    assert fractions[0] == 0.5 and fractions == sorted(fractions) and 0.5 < fractions[-1] < 1.0
    assert updates[0][1] == "run 2 of 2" and updates[-1][1] == "run 2 of 2, 0 s"


def test_without_scipy_the_kind_says_what_is_absent():
    script = (
        "import sys; sys.modules['scipy'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.worker_main import error_of\n"
        "from node.executor.context import Context, load\n"
        "payload = validate('scientific_computing', {'operation': 'fft'})\n"
        "try: load('scientific_computing')(payload, Context(1, Path('.')))\n"
        "except ImportError as error: print(error_of('scientific_computing', error).code, error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unavailable scipy"
