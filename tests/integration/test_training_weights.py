"""The weights of a training: given back as safetensors, and the start of the next training when they fit its model."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save

from api.cli.output.results import files_of
from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.training import models
from node.workloads.training.weights import METRICS, WEIGHTS, misfits, steps_in

SMALL = {"features": 6, "width": 8, "classes": 3, "batch": 16, "precision": "fp32", "optimizer": "sgd"}
TINY = {
    "model": "transformer", "layers": 1, "width": 16, "heads": 2, "context": 16, "vocabulary": 64, "batch": 4,
    "precision": "fp32",
}  # fmt: skip
IMAGES = {"model": "resnet50", "image_size": 32, "classes": 2, "batch": 4, "precision": "fp32"}


@pytest.fixture
def run(tmp_path):
    """`run(payload)`: (the result, name -> path of its files)."""

    def call(payload, **more):
        attached = {}

        def attach(name: str, file: Path, content_type: str) -> None:
            attached[name] = file.rename(tmp_path / f"{len(list(tmp_path.iterdir()))}-{name}")

        context = Context(1, tmp_path, attach=attach, memory_mb=4096, **more)
        return load("ml_training")(validate("ml_training", payload), context), attached

    return call


@pytest.mark.parametrize(
    "payload", [SMALL, TINY, IMAGES | {"steps": 2}], ids=lambda payload: payload.get("model", "mlp")
)
def test_a_training_continues_exactly_where_another_one_ended(run, payload):
    """Weights and batches are those of one longer training, so the first loss is the one that this has at that step."""
    steps = payload.get("steps", 12)
    (whole, _), (first, files) = run(payload | {"steps": steps + 1}), run(payload | {"steps": steps})
    assert first["steps_before"] == 0 and set(files) == {WEIGHTS, METRICS}
    second, more = run(payload | {"steps": 2, "start_from": files[WEIGHTS].read_bytes()})
    assert second["losses"][0][1] == whole["losses"][-1][1] and second["steps_before"] == steps
    with safe_open(more[WEIGHTS], "pt") as opened:
        assert opened.metadata()["steps"] == str(steps + 2) and opened.metadata()["model"] == whole["model"]
    rows = list(csv.reader(more[METRICS].read_text().splitlines()))
    assert rows[0] == ["step", "loss"] and [int(step) for step, _ in rows[1:]] == [steps + 1, steps + 2]
    assert [float(loss) for _, loss in rows[1:]] == [loss for _, loss in second["losses"]]


def test_weights_in_a_blob_and_in_the_payload_are_the_same_start(run):
    _, files = run(SMALL | {"steps": 3})
    given, _ = run(SMALL | {"steps": 2, "start_from": files[WEIGHTS].read_bytes()})
    named, _ = run(SMALL | {"steps": 2, "start_from": {"blob": "b-t1"}}, blobs={"b-t1": files[WEIGHTS]})
    assert named["losses"] == given["losses"] and named["steps_before"] == 3


def test_the_weights_have_the_names_and_values_of_the_model(run):
    _, files = run(TINY | {"steps": 2})
    tensors = load_file(files[WEIGHTS])
    model = models.build(validate("ml_training", TINY))
    model.load_state_dict(tensors)
    assert all(torch.equal(part, tensors[name]) for name, part in model.state_dict().items())


def test_a_resumed_training_keeps_the_count_of_the_trainings_before_it(run, tmp_path, monkeypatch):
    from node.workloads import ml_training

    monkeypatch.setattr(ml_training, "_CHECKPOINT_SHARE", 1e6)
    _, files = run(SMALL | {"steps": 5})
    kept = []

    def checkpoint(file, note=""):
        kept.append(file.rename(tmp_path / f"kept-{len(kept)}"))

    payload = SMALL | {"steps": 30, "start_from": files[WEIGHTS].read_bytes(), "checkpoint_every_s": 1e-3}
    whole, _ = run(payload, checkpoint=checkpoint)
    rest, _ = run(payload, resume=kept[0])
    assert rest["resumed_from_step"] > 0 and rest["steps_before"] == 5 and rest["losses"] == whole["losses"]


def test_a_training_that_has_little_left_to_learn_does_not_fail(run):
    _, files = run(SMALL | {"steps": 3})
    result, _ = run(SMALL | {"steps": 60, "learning_rate": 0, "start_from": files[WEIGHTS].read_bytes()})
    assert result["loss_fell"] is False and "did not fall" in result["loss_words"]


def test_no_files_are_written_when_none_are_wanted(run):
    result, files = run(SMALL | {"steps": 3, "weights": False})
    assert result["steps"] == 3 and not files


class Tensorless:
    """Pickles as a call: weights with code."""

    def __reduce__(self):
        return (print, ("this is code of a peer",))


def pickled(tmp_path: Path, value: object) -> bytes:
    torch.save(value, tmp_path / "pickled")
    return (tmp_path / "pickled").read_bytes()


def test_weights_that_do_not_fit_are_refused_with_every_fault(run, tmp_path, capsys):
    good = models.build(validate("ml_training", SMALL)).state_dict()
    bad = {name: tensor.clone() for name, tensor in good.items()}
    bad["extra"] = bad.pop("0.bias")
    bad["0.weight"] = torch.zeros(6, 8)
    bad["2.bias"] = torch.zeros(8, dtype=torch.int64)
    with pytest.raises(BadInput) as caught:
        run(SMALL | {"start_from": save(bad)})
    assert {fault.field for fault in caught.value.faults} == {"payload.start_from"}
    assert [fault.problem for fault in caught.value.faults] == [
        "has 0.weight of shape 6 x 8, and the model's is 8 x 6",
        "lacks 0.bias (8)",
        "has 2.bias of type I64, and the model's is F32",
        "has 'extra', which the model lacks",
    ]
    broken = {name: tensor.clone() for name, tensor in good.items()}
    broken["4.bias"][1] = torch.nan
    broken["4.weight"][0, 0] = torch.inf
    whole = save(good)
    for data, problems in (
        (save(broken), ["4.weight that are not finite", "4.bias that are not finite"]),
        (pickled(tmp_path, good), ["is pickled, as torch.save does it"]),
        (pickled(tmp_path, Tensorless()), ["is pickled, as torch.save does it"]),
        (b"\x80\x04\x95 a pickle", ["is pickled, as torch.save does it"]),
        (whole[: len(whole) // 2], ["is no valid safetensors file"]),
        (b"", ["is no valid safetensors file"]),
        ((1 << 63).to_bytes(8, "little") + whole[8:], ["is no valid safetensors file"]),
    ):
        with pytest.raises(BadInput) as caught:
            run(SMALL | {"start_from": data})
        found = [fault.problem for fault in caught.value.faults]
        assert len(found) == len(problems) and all(map(str.__contains__, sorted(found), sorted(problems))), found
    assert "code of a peer" not in capsys.readouterr().out
    with pytest.raises(InputFault, match=r"payload\.start_from names the blob b-tgone, which the mesh does not have"):
        run(SMALL | {"start_from": {"blob": "b-tgone"}})


def test_numbers_of_other_precision_are_taken(run):
    good = models.build(validate("ml_training", SMALL)).state_dict()
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        result, _ = run(SMALL | {"steps": 2, "start_from": save({name: part.to(kind) for name, part in good.items()})})
        assert result["steps"] == 2


SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
NAMES = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.dictionaries(NAMES, SHAPES), st.sets(NAMES),
    st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(["F32", "F16", "I64", "U8"]))),
)  # fmt: skip
def test_each_name_that_does_not_fit_is_one_fault(expected, whole, found):
    faults = misfits(expected, whole, found)
    fitting = {
        name
        for name, shape in expected.items()
        if name in found and found[name][0] == shape and found[name][1].startswith("F") is not (name in whole)
    }
    assert len(faults) == len(expected.keys() | found.keys()) - len(fitting)
    assert all(fault.startswith(("has ", "lacks ")) and "\n" not in fault for fault in faults)


@given(st.text(max_size=20) | st.integers(-9, 1 << 60).map(str))
def test_the_count_of_steps_in_a_file_is_a_count_or_nothing(text):
    steps = steps_in({"steps": text})
    assert 0 <= steps < 1 << 40 and (steps == 0 or str(steps) == text.lstrip("0")) and steps_in({}) == 0


def test_names_of_files_that_lead_elsewhere_are_not_written():
    good = {"weights.safetensors": {"blob": "b-t1"}, "metrics.csv": {"blob": "b-t2", "size": 4}}
    odd = {"../x": {"blob": "b-t3"}, ".hidden": {"blob": "b-t3"}, "a/b": {"blob": "b-t3"}, "": {"blob": "b"}, "c": 3}
    assert files_of({"files": good | odd}) == {"weights.safetensors": "b-t1", "metrics.csv": "b-t2"}
    assert files_of({"files": ["x"]}) == files_of([1]) == files_of({}) == {}
