"""ml_training that resumes: the same losses as without a stop, invalid checkpoints, and a store that fails."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.workloads import ml_training
from tests.trainings import TINY

GIVEN = {"features": 5, "classes": 3, "width": 64, "batch": 16, "learning_rate": 0.01}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs ml_training; checkpoints are taken as often as requested, however long each takes."""
    monkeypatch.setattr(ml_training, "_CHECKPOINT_SHARE", 1e6)

    def call(payload, **more):
        return load("ml_training")(validate("ml_training", payload), Context(1, tmp_path, **more))

    return call


def npz():
    """64 samples of three classes."""
    file = io.BytesIO()
    np.savez(file, x=np.random.default_rng(0).normal(size=(64, 5)), y=np.arange(64) % 3)
    return file.getvalue()


def keeping(folder: Path):
    """(the `checkpoint` function for a context, the list of files and notes that it received)"""
    found = []

    def checkpoint(file, note=""):
        found.append((file.rename(folder / f"kept-{len(found)}"), note))

    return checkpoint, found


@pytest.mark.parametrize(
    "payload",
    [{"features": None}, {"features": None, "optimizer": "sgd"}, TINY | {"learning_rate": 1e-2}, GIVEN],
)
def test_a_resumed_run_gives_the_losses_of_one_that_never_stopped(run, tmp_path, payload):
    payload |= {"precision": "fp32", "steps": 40} | ({"data": npz()} if payload.get("features") else {})
    checkpoint, kept = keeping(tmp_path)
    whole = run(payload | {"checkpoint_every_s": 0.001}, checkpoint=checkpoint)
    assert whole["checkpoints"]["taken"] == len(kept) > 1 and whole["checkpoints"]["bytes"] > 1000
    file, note = kept[len(kept) // 2]
    rest = run(payload, resume=file)
    at = rest["resumed_from_step"]
    assert note == f"step {at}" and rest["note"] == f"resumed from step {at}" and 0 < at < 40
    assert (rest["steps"], rest["steps_this_run"], rest["runs"]) == (40, 40 - at, 2)
    assert rest["losses"] == whole["losses"] and rest["seconds"] > 0


class Tensorless:
    """Pickles as a call: a checkpoint with code."""

    def __reduce__(self):
        return (print, ("this is code of a peer",))


def test_an_invalid_checkpoint_means_starting_over_with_a_note(run, tmp_path, capsys):
    checkpoint, kept = keeping(tmp_path)
    run({"steps": 20, "checkpoint_every_s": 0.001}, checkpoint=checkpoint)
    whole = kept[0][0].read_bytes()
    torch.save({"format": 1, "model": Tensorless()}, tmp_path / "code")
    torch.save({"format": 1, "precision": "fp32"}, tmp_path / "empty")
    torch.save([1, 2], tmp_path / "other")
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise").write_bytes(b"\x00" * 5000)
    for name in ("code", "empty", "other", "cut", "noise"):
        result = run({"steps": 20}, resume=tmp_path / name)
        assert result["note"].startswith("started over: the checkpoint"), name
        assert (result["steps_this_run"], result["resumed_from_step"], result["runs"]) == (20, 0, 1)
    assert "code of a peer" not in capsys.readouterr().out
    other = run({"steps": 20, "width": 64}, resume=kept[0][0])
    assert other["note"].startswith("started over: the checkpoint is of another training")


def test_a_store_that_fails_costs_nothing_but_the_checkpoints(run, tmp_path):
    checkpoint, found = keeping(tmp_path)
    result = run({"steps": 60, "checkpoint_every_s": 0.001}, checkpoint=checkpoint, kept=lambda: (0, len(found)))
    assert result["steps"] == 60 and result["checkpoints"] | {"seconds": 0, "bytes": 0} == {
        "taken": 3, "kept": 0, "not_kept": 3, "bytes": 0, "seconds": 0,
    }  # fmt: skip
    assert run({"steps": 30, "checkpoint_every_s": 0}, checkpoint=checkpoint)["checkpoints"]["taken"] == 0
