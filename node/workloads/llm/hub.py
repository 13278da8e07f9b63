"""Models from a hub by their id, for members of a closed mesh: downloaded once into this user's cache.

A separate process downloads (`download.py`), because the libraries that load models are configured to be offline and
read that setting only once. Only weights that can't contain code, and their descriptions, are downloaded. The
operator's hub credentials are never used for a peer. HF_ENDPOINT selects the hub.
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
from node.workloads.llm.models import ModelUnavailable, ModelUnavailableNow

#: The files that describe a model; none of them is code.
_DESCRIPTIONS = re.compile(r"[^/]+\.(json|txt|model|jinja)")
#: The preferred one of several GGUF files, the most common quantisation: four bits, with almost no loss.
_PREFERRED = re.compile(r"Q4_K_M", re.IGNORECASE)
#: A GGUF file that is one of several parts.
_PART = re.compile(r"-\d+-of-\d+\.gguf$", re.IGNORECASE)
GET_LIBRARY = "pip install 'queztl[llm]'"
#: Environment variables that the download must not inherit: offline mode, and the operator's hub credentials.
_NOT_PASSED_ON = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def choose(files: Mapping[str, int]) -> tuple[Format, tuple[str, ...]]:
    """(format, files to download) of a model with these files in its top folder (pure). `files`: name -> size, bytes.

    Raises: InputFault when it has no weights in a format that excludes code.
    """
    names = sorted(files)
    if any(name.endswith(".safetensors") for name in names):
        selected = [name for name in names if name.endswith(".safetensors") or _DESCRIPTIONS.fullmatch(name)]
        return "safetensors", tuple(selected)
    whole = [name for name in names if name.endswith(".gguf") and not _PART.search(name)]
    if whole:
        return "gguf", (min(whole, key=lambda name: (not _PREFERRED.search(name), files[name], name)),)
    raise InputFault("hub", "has no weights as safetensors or as a single GGUF file; other formats could run code")


def folder_of(name: str, commit: str) -> Path:
    """The folder of a downloaded model, which may not exist yet."""
    return shared_folder(Path.cwd()) / "hub" / f"{name.replace('/', '--')}@{commit}"


def find(hub: str, report: Callable[..., None]) -> Model:
    """The model with this id, downloaded if necessary. `report(fraction, note)` is called during the download.

    Raises: InputFault when there is no such model, or no safe one; ModelUnavailable without the library;
    ModelUnavailableNow without the hub.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ModelUnavailable(f"it lacks huggingface_hub: {GET_LIBRARY}")
    known = _fetched.get(hub)
    if known is None or not known.path.exists():
        known = _fetched[hub] = _fetch(hub, report)
    return known


#: The models that this process has resolved: a revision on the hub may move, but not during the life of a worker.
_fetched: dict[str, Model] = {}


def _fetch(hub: str, report: Callable[..., None]) -> Model:
    name, _, revision = hub.partition("@")
    command = [sys.executable, "-P", "-m", "node.workloads.llm.download", name, revision or "main"]
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    # It runs in the worker's process group, so that it ends with the worker.
    message: dict[str, Any] = {}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                message = json.loads(line)
                if "bytes" in message:
                    share, megabytes = message["share"], message["bytes"] / 1e6
                    report(share, f"downloading {hub}: {share:.0%} of {megabytes:,.0f} MB")
        except BaseException:
            child.kill()
            raise
    if "model" in message:
        return Model(name, message["format"], Path(message["model"]))
    if "wrong" in message:
        raise InputFault("hub", message["wrong"])
    raise ModelUnavailableNow(message.get("away") or f"the download of {hub} ended without a result")
