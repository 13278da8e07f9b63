"""The measured speeds of this machine: which are known, and which kinds can be measured.

A speed is the run time of the kind's `probe` (mesh/kinds) in seconds. It is stored in the data directory, and valid as
long as everything that it may depend on stays the same: hardware, slots, versions, the probe itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Container, Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from mesh import data_folder
from mesh.files import write_atomically
from mesh.kinds.base import KindSpec
from mesh.messages import Capabilities

log = logging.getLogger(__name__)


def conditions(spec: KindSpec, capabilities: Capabilities, slots: int, version: str) -> str:
    """A digest of everything that a speed of `spec` may depend on; `version`: of Queztl."""
    machine = (
        capabilities.os, capabilities.arch, capabilities.cpu_model, capabilities.cpu_features, capabilities.cores,
        capabilities.memory_bytes, slots, version,
    )  # fmt: skip
    devices = [msgspec.structs.astuple(accelerator) for accelerator in capabilities.accelerators]
    needed = sorted(need.module for need in spec.needs)
    libraries = [(module, capabilities.libraries.get(module, "")) for module in ("python", *needed)]
    optional = [*spec.gains, *(need for alternative in spec.either for need in alternative)]
    libraries += [(need.module, _installed(need.module)) for need in optional]
    facts = (machine, devices, libraries, spec.probe, asdict(spec.resources))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def measurable(specs: Iterable[KindSpec], capabilities: Capabilities) -> list[KindSpec]:
    """The kinds that have a probe and can run on this machine."""
    available = {info.kind for info in capabilities.kinds if info.available}
    return [spec for spec in specs if spec.probe is not None and spec.name in available]


def known(
    specs: Iterable[KindSpec], capabilities: Capabilities, slots: int, version: str, folder: Path
) -> dict[str, float]:
    """kind -> seconds, of the kinds that were measured under the same conditions; `folder`: the data directory."""
    stored = _load(folder / data_folder.SPEEDS)
    found: dict[str, float] = {}
    for spec in measurable(specs, capabilities):
        entry = stored.get(spec.name)
        if isinstance(entry, dict) and entry.get("of") == conditions(spec, capabilities, slots, version):
            seconds = entry.get("seconds")
            if isinstance(seconds, (int, float)) and seconds > 0:
                found[spec.name] = float(seconds)
    return found


def save(kind: str, seconds: float, of: str, folder: Path) -> float:
    """Store a speed for the next start, and return the best one measured under these conditions, `of`.

    A failure costs only another measurement.
    """
    stored = _load(folder / data_folder.SPEEDS)
    entry = stored.get(kind)
    earlier = entry if isinstance(entry, dict) and entry.get("of") == of else {}
    before, times = earlier.get("seconds"), earlier.get("times", 1)
    if isinstance(before, (int, float)) and isinstance(times, int) and before > 0:
        seconds, times = min(seconds, before), times + 1
    else:
        times = 1
    try:
        text = json.dumps(stored | {kind: {"seconds": seconds, "of": of, "times": times}}, indent=1)
        write_atomically(folder / data_folder.SPEEDS, text.encode())
    except OSError as error:
        log.warning("could not save the measured speed of %s; the next start measures it again: %s", kind, error)
    return seconds


def to_repeat(specs: Iterable[KindSpec], known_kinds: Container[str], occasions: int, folder: Path) -> list[KindSpec]:
    """The known kinds that were measured on fewer than `occasions` occasions."""
    stored = _load(folder / data_folder.SPEEDS)

    def times(kind: str) -> int:
        entry = stored.get(kind)
        count = entry.get("times", 1) if isinstance(entry, dict) else occasions
        return count if isinstance(count, int) else occasions

    return [spec for spec in specs if spec.name in known_kinds and times(spec.name) < occasions]


def _load(file: Path) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
