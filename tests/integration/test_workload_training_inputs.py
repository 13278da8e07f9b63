"""ml_training on data in the payload, and invalid payloads."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mesh.kinds.ml_training import memory_bytes
from mesh.kinds.table import validate
from node.executor.context import InputFault
from node.executor.worker_main import error_of
from node.workloads.ml_training import DidNotLearn
from node.workloads.training.data import open_source
from tests.trainings import CONTEXT, SMALL_IMAGES, TINY, npz, trained

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    return partial(trained, tmp_path)


X, Y = np.random.default_rng(0).normal(size=(64, 5)), np.arange(64) % 3
GIVEN = {"features": 5, "classes": 3, "width": 64, "batch": 16, "learning_rate": 0.01, "steps": 150}


def test_given_samples_images_and_texts_are_learnt(run, tmp_path):
    (tmp_path / "b").write_bytes(npz(x=X, y=Y))
    result = run(GIVEN | {"data": {"blob": "b-1"}}, blobs={"b-1": tmp_path / "b"})
    assert result["loss_fell"] and result["data"] == "given: 64 samples, each once per epoch"
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    payload = validate("ml_training", SMALL_IMAGES | {"batch": 8, "data": npz(x=images, y=Y[:8] % 2)})
    inputs, targets = open_source(payload, CONTEXT, "cpu").batch(0)
    at = [int((images.astype(np.float32) == 255 * image.numpy()).all((1, 2, 3)).argmax()) for image in inputs]
    assert sorted(at) == list(range(8)) and targets.tolist() == [Y[n] % 2 for n in at]
    text = b"the quick brown fox jumps over the lazy dog. " * 30
    assert run(TINY | {"data": text, "steps": 60, "learning_rate": 3e-3})["loss_fell"]


def test_each_given_sample_is_seen_once_an_epoch():
    payload = validate("ml_training", GIVEN | {"data": npz(x=np.arange(320.0).reshape(64, 5), y=Y)})
    batches = open_source(payload, CONTEXT, "cpu")
    seen = [float(row[0]) for step in range(8) for row in batches.batch(step)[0]]
    assert sorted(seen[:64]) == sorted(seen[64:]) == [5.0 * n for n in range(64)] and seen[:64] != seen[64:]


class Pickled:
    """An object that must never be unpickled."""

    def __reduce__(self):
        return (print, ("this is code of a peer",))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not a valid .npz"),
        (b"PK\x03\x04 and then nothing", "is not a valid .npz"),
        (npz(x=X, y=Y)[:-200], "is not a valid .npz"),
        (npz(x=X), "it lacks y"),
        (npz(x=np.array([Pickled()], dtype=object), y=Y), "contains Python objects, which may run code"),
        (npz(x=X[:, :4], y=Y), r"of shape samples x 5 \(features\), not \(64, 4\)"),
        (npz(x=X[:0], y=Y[:0]), r"of shape samples x 5 \(features\), not \(0, 5\)"),
        (npz(x=X, y=Y[:9]), "a y of 64 classes"),
        (npz(x=X, y=Y + 0.5), "a y of whole numbers"),
        (npz(x=X, y=Y - 1), "a y from 0 to 2"),
        (npz(x=X, y=Y + 1), "a y from 0 to 2"),
        (npz(x=X.astype(complex), y=Y), "floating-point numbers or uint8"),
        (npz(x=np.where(X > 2, np.nan, X), y=Y), "not finite numbers"),
        (npz(x=np.where(X > 2, 1e300, X), y=Y), "not finite numbers"),
    ],
)
def test_bad_arrays_are_refused_with_their_problem(run, data, problem, capsys):
    with pytest.raises(InputFault, match=problem) as caught:
        run(GIVEN | {"data": data})
    assert caught.value.field == "data" and "code of a peer" not in capsys.readouterr().out


def test_an_archive_that_expands_too_much_is_not_unpacked(run, monkeypatch):
    monkeypatch.setattr("node.workloads.training.data.MAX_ARRAY_BYTES", 1 << 20)
    with pytest.raises(InputFault, match="unpacked"):
        run(GIVEN | {"data": npz(x=np.zeros((1 << 19, 5)), y=Y)})


def test_a_text_shorter_than_the_context_is_refused(run):
    with pytest.raises(InputFault, match="must be longer than context: 34 bytes or more, not 33"):
        run(TINY | {"data": b"x" * 33})


# --- hostile and unfit payloads --------------------------------------------------------------------


def test_a_batch_too_large_for_the_task_is_refused_with_its_estimate(run):
    with pytest.raises(InputFault, match=r"needs about \d+ MB with this model, and this task has 6144 MB"):
        run({"model": "transformer", "batch": 64})


def test_the_estimate_of_memory_is_close_to_the_peak():
    """Runs in a process of its own: the peak of this process includes all tests."""
    payload = TINY | {"batch": 256, "steps": 2, "precision": "fp32"}
    script = (
        "import json, sys; from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.context import Context, load\n"
        "payload = validate('ml_training', json.loads(sys.argv[1]))\n"
        "print(load('ml_training')(payload, Context(1, Path('.')))['peak_memory_mb'])\n"
    )
    command = [sys.executable, "-c", script, json.dumps(payload)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    checked = validate("ml_training", payload)
    estimate_mb = memory_bytes(checked.model_dump(), checked.batch) >> 20
    assert 0.6 < int(done.stdout) / estimate_mb < 1.3, (done.stdout, estimate_mb)


def test_exhausted_memory_is_a_memory_error(run, monkeypatch):
    def exhausted(self):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("node.workloads.training.run.Training.step", exhausted)
    with pytest.raises(MemoryError):
        run({})


def test_a_loss_that_is_nan_fails_at_once_and_is_not_an_input_fault(run):
    with pytest.raises(DidNotLearn, match="try a smaller learning_rate") as caught:
        run(GIVEN | {"data": npz(x=X / np.abs(X).max() * 3e38, y=Y), "optimizer": "sgd", "precision": "fp32"})
    assert error_of("ml_training", caught.value).code == "failed"
