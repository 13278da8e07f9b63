"""The examples of the kinds that load PyTorch; tests/contract/test_kinds.py runs those of all other kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.kinds.table import KINDS
from node.executor.context import Context
from tests.kind_examples import LOADS_PYTORCH, example_runs


def test_the_kinds_that_load_pytorch_are_in_the_table() -> None:
    assert set(LOADS_PYTORCH) <= set(KINDS)


@pytest.mark.parametrize("kind", LOADS_PYTORCH)
def test_example_runs_and_its_result_crosses_the_bus(kind: str, tmp_path: Path) -> None:
    example_runs(kind, Context(cores=1, folder=tmp_path))
