"""Models of a hub by their id, for members of a closed mesh: fetched once into this user's cache, then here.

A process of its own fetches (`llm_download.py`): the libraries that load models are told to ask no hub for anything,
and read that once. Only weights that can't run code come, and what describes them; the operator's own access to the hub
is never used for a peer. The hub is the one that HF_ENDPOINT names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node.executor.context import InputFault
from node.probes.models import Format, Model
from node.probes.packages import shared_folder
from node.workloads.llm.models import NotHere

#: What describes a model, beside its weights; none of it is code.
_DESCRIPTIONS = re.compile(r"[^/]+\.(json|txt|model|jinja)")
#: Of several GGUF files, the one that most take: four bits, next to no loss.
_LIKED = re.compile(r"Q4_K_M", re.IGNORECASE)
#: A GGUF that is one of several parts.
_PART = re.compile(r"-\d+-of-\d+\.gguf$", re.IGNORECASE)
GET_LIBRARY = "pip install 'queztl[llm]'"
#: Set here for what loads models, and the operator's own keys to the hub.
_NOT_PASSED_ON = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def choose(files: Mapping[str, int]) -> tuple[Format, tuple[str, ...]]:
    """(format, the files to fetch) of a model that has these at its top. `files`: name -> bytes. Pure.

    Raises: InputFault when it has no weights in a format that holds no code.
    """
    names = sorted(files)
    if any(name.endswith(".safetensors") for name in names):
        wanted = [name for name in names if name.endswith(".safetensors") or _DESCRIPTIONS.fullmatch(name)]
        return "safetensors", tuple(wanted)
    whole = [name for name in names if name.endswith(".gguf") and not _PART.search(name)]
    if whole:
        return "gguf", (min(whole, key=lambda name: (not _LIKED.search(name), files[name], name)),)
    raise InputFault("hub", "has no weights as safetensors or as one GGUF file, and others could run code")


def folder_of(name: str, commit: str) -> Path:
    """Where that model lies, or is to lie."""
    return shared_folder(Path.cwd()) / "hub" / f"{name.replace('/', '--')}@{commit}"


def find(hub: str, tell: Callable[..., None]) -> Model:
    """The model of that id, fetched if it is not here. `tell(fraction, note)` while it is on its way.

    Raises: InputFault (there is no such model, or none that is safe), NotHere (the hub or the library can't be had).
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise NotHere(f"it lacks huggingface_hub: {GET_LIBRARY}")
    known = _fetched.get(hub)
    if known is None or not known.path.exists():
        known = _fetched[hub] = _fetch(hub, tell)
    return known


#: What this process has asked the hub about: a revision may move, but not under a worker.
_fetched: dict[str, Model] = {}


def _fetch(hub: str, tell: Callable[..., None]) -> Model:
    name, _, revision = hub.partition("@")
    command = [sys.executable, "-P", "-m", "node.workloads.llm.download", name, revision or "main"]
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    # In this worker's own process group: whoever ends the worker ends it, too.
    said: dict[str, Any] = {}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                said = json.loads(line)
                if "bytes" in said:
                    tell(said["share"], f"fetching {hub}: {said['share']:.0%} of {said['bytes'] / 1e6:,.0f} MB")
        except BaseException:
            child.kill()
            raise
    if "model" in said:
        return Model(name, said["format"], Path(said["model"]))
    if "wrong" in said:
        raise InputFault("hub", said["wrong"])
    raise NotHere(said.get("away") or f"what fetches {hub} ended without a word")
