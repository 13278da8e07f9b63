"""Operations on a GPU: PyTorch's calls on the device at hand, with the same checks as results of the processor."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.workloads.science import dense_gpu
from node.workloads.scientific_computing import Processor

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ["linpack", "dgemm", "sgemm", "fft"]


def run(folder, operation, **more):
    payload = validate("scientific_computing", {"operation": operation, "n": 200, "device": "gpu"} | more)
    return load("scientific_computing")(payload, Context(2, folder))


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_gives_what_numpy_gives(torch, dtype):
    random = np.random.default_rng(1)
    ours, theirs = Processor(2), dense_gpu.Torch("cpu", "the processor, by PyTorch")
    left, right = (random.random((60, 60)).astype(dtype) for _ in range(2))
    close = {"rtol": 1e-3, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-11}
    assert np.allclose(ours.product(left, right)[0], theirs.product(left, right)[0], **close)
    well = left + 60 * np.eye(60, dtype=dtype)
    assert np.allclose(ours.solve(well, right[0])[0], theirs.solve(well, right[0])[0], **close)
    signal = (left + 1j * right).reshape(4, 30, 30).astype(np.result_type(dtype, np.complex64))
    for ours_array, their_array in zip(
        ours.round_trip(signal, (1, 2))[:2], theirs.round_trip(signal, (1, 2))[:2], strict=True
    ):
        assert ours_array.dtype == their_array.dtype and np.allclose(ours_array, their_array, **close)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_whole_work_passes_its_check(torch, tmp_path, monkeypatch, operation):
    monkeypatch.setattr(dense_gpu, "gpu", lambda dtype: dense_gpu.Torch("cpu", "the processor, by PyTorch"))
    result = run(tmp_path, operation)
    assert result["passed"] and result["device"] == "the processor, by PyTorch" and result["gflops"] > 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_real_gpu_passes_its_check(torch, tmp_path, operation):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    result = run(tmp_path, operation, n=2000 if operation != "fft" else 1 << 16)
    assert result["passed"] and result["device"] == torch.cuda.get_device_name()


def test_a_machine_without_a_gpu_says_so(torch, tmp_path):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(dense_gpu.NoGpu, match="has no GPU that PyTorch can use"):
        run(tmp_path, "linpack")


def test_without_torch_it_says_what_is_absent():
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.worker_main import error_of\n"
        "from node.executor.context import Context, load\n"
        "payload = validate('scientific_computing', {'device': 'gpu'})\n"
        "try: load('scientific_computing')(payload, Context(1, Path('.')))\n"
        "except ImportError as error: print(error_of('scientific_computing', error).code, error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unavailable torch"


@pytest.mark.parametrize("operation", ["sparse_solve", "monte_carlo"])
def test_an_operation_for_the_processor_only_refuses_a_gpu(operation):
    with pytest.raises(BadInput) as caught:
        validate("scientific_computing", {"operation": operation, "device": "gpu"})
    assert [fault.field for fault in caught.value.faults] == ["payload.device"]
