"""Small trainings, and helpers for the tests of ml_training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mesh.kinds.ml_training import MEMORY_MB
from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.workloads.training import models

TINY = {"model": "transformer", "layers": 2, "width": 32, "heads": 2, "context": 32, "vocabulary": 256, "batch": 8}
SMALL_IMAGES = {"model": "resnet50", "image_size": 32, "classes": 4, "batch": 16, "precision": "fp32"}
CONTEXT = Context(1, Path("."))


def trained(folder: Path, payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Train as a task does, with temporary files in `folder`; returns the result."""
    context = Context(1, folder, memory_mb=MEMORY_MB, **more)
    return load("ml_training")(validate("ml_training", payload), context)


def npz(**arrays: Any) -> bytes:
    """The arrays as an .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def count(payload: dict[str, Any]) -> int:
    """How many parameters the model of a payload has."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in models.build(validate("ml_training", payload)).parameters())
