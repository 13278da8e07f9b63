"""How fast this machine does each kind: what is known of it, and what is still to be measured.

A speed is the run time in seconds of the kind's `probe` (mesh/kinds). It is kept in the data folder and holds for as
long as nothing changes that it may depend on: hardware, slots, versions, the probe itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from mesh.files import write_atomically
from mesh.kinds.base import KindSpec
from mesh.messages import Capabilities

log = logging.getLogger(__name__)

FILE = "speeds.json"


def circumstances(spec: KindSpec, have: Capabilities, slots: int, version: str) -> str:
    """A short name of everything that a speed of `spec` may depend on; `version` is that of Queztl."""
    machine = (have.os, have.arch, have.cpu_model, have.cpu_features, have.cores, have.memory_bytes, slots, version)
    devices = [msgspec.structs.astuple(one) for one in have.accelerators]
    needed = sorted(need.module for need in spec.needs)
    libraries = [(module, have.libraries.get(module, "")) for module in ("python", *needed)]
    optional = [*spec.gains, *(need for one in spec.either for need in one)]
    libraries += [(need.module, _installed(need.module)) for need in optional]
    facts = (machine, devices, libraries, spec.probe, asdict(spec.resources))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def measurable(specs: Iterable[KindSpec], have: Capabilities) -> list[KindSpec]:
    """The kinds that have a probe and can run here."""
    able = {info.kind for info in have.kinds if info.available}
    return [spec for spec in specs if spec.probe is not None and spec.name in able]


def known(specs: Iterable[KindSpec], have: Capabilities, slots: int, version: str, folder: Path) -> dict[str, float]:
    """kind -> seconds, of those that were measured under the same circumstances."""
    stored = _load(folder / FILE)
    found = {}
    for spec in measurable(specs, have):
        entry = stored.get(spec.name)
        if isinstance(entry, dict) and entry.get("of") == circumstances(spec, have, slots, version):
            seconds = entry.get("seconds")
            if isinstance(seconds, (int, float)) and seconds > 0:
                found[spec.name] = float(seconds)
    return found


def keep(kind: str, seconds: float, of: str, folder: Path) -> None:
    """Remember a speed for the next start; a folder that can't be written costs only a measurement."""
    stored = _load(folder / FILE) | {kind: {"seconds": seconds, "of": of}}
    try:
        write_atomically(folder / FILE, json.dumps(stored, indent=1).encode())
    except OSError as error:
        log.warning("can't keep how fast %s is, the next start measures it again: %s", kind, error)


def _load(file: Path) -> Mapping[str, Any]:
    try:
        stored = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
