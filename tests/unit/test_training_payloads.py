"""ml_training without PyTorch: payloads, verdicts on losses, and when a checkpoint is due."""

from __future__ import annotations

import math

import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.workloads.ml_training import due
from node.workloads.training import curve


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        ({"model": "transformer", "batch": 100_000}, ["batch"]),
        ({"model": "transformer", "width": 65_536, "heads": 256, "layers": 128}, ["batch"]),
        ({"batch": 1_000_000, "features": 1_000_000}, ["batch"]),
        ({"layers": 10**9, "width": -1, "batch": 10**12}, ["layers", "width", "batch"]),
        ({"model": "transformer", "width": 100, "heads": 3}, ["heads"]),
        ({"model": "resnet50", "layers": 3, "heads": 2}, ["layers", "heads"]),
        ({"model": "resnet50", "image_size": 32, "batch": 1}, ["batch"]),
        ({"model": "transformer", "vocabulary": 100, "data": b"text"}, ["vocabulary"]),
        ({"learning_rate": math.nan, "seconds": math.inf, "checkpoint_every_s": -1}, None),
        ({"model": "alexnet", "optimizer": "lion", "precision": "fp8", "device": "/dev/sda"}, None),
    ],
)
def test_invalid_values_are_refused_at_submission(payload, fields):
    with pytest.raises(BadInput) as caught:
        validate("ml_training", payload)
    found = [fault.field.removeprefix("payload.") for fault in caught.value.faults]
    assert sorted(found) == sorted(fields or payload)


def test_verdicts():
    falling = [2.0 - 0.01 * step + 0.05 * (-1) ** step for step in range(100)]
    assert curve.judge(falling).fell is True
    assert curve.judge(falling[::-1]).fell is False
    assert curve.judge([2.0 + 0.05 * (-1) ** step for step in range(100)]).fell is False
    assert curve.judge([2.0, 3.5, 0.5, 2.9, 1.0, 3.0] * 4).fell is None
    assert curve.judge([*falling, math.nan]).fell is False
    assert curve.judge(falling[:19]).fell is None and curve.judge([]).fell is None
    assert curve.thinned([1.0, 3.0, 5.0, 7.0, 9.0], 3) == [[2, 2.0], [4, 6.0], [5, 9.0]]
    assert len(curve.thinned([1.0] * 100_001)) <= 200


def test_checkpoints_take_a_tenth_of_the_time_at_most():
    assert not due(29.9, 0.0, 30.0, 0.0) and due(30.0, 0.0, 30.0, 0.0)
    assert not due(99.0, 0.0, 30.0, 10.0) and due(100.0, 0.0, 30.0, 10.0)
    assert not due(1e9, 0.0, 0.0, 0.0)
