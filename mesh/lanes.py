"""Lanes: which lane a task is queued in, and which lanes a node may pull from. Pure.

A lane is (kind, pool, urgency). A pool is a class of requirements (`class_of`), under a short stable name: `any` has no
requirements, `node-<id>` is for one named node. In a mesh of several regions a task with an origin and without
requirements goes into `any@<region>`: all nodes may pull from it, those of the region first. The accepted requirements
are defined here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from mesh.errors import Fault
from mesh.messages import NodeRecord
from mesh.subjects import URGENCIES, is_token

Lane = tuple[str, str, str]
ANY = "any"
#: The lowest priority of a pull request; 0 is the highest.
LAST = 9
ACCELERATORS = ("gpu", "cuda", "rocm", "mps", "ane", "tpu")
#: The largest accepted number of cores or megabytes.
MAX_AMOUNT = 1_000_000_000
#: The requirements that are numbers.
AMOUNTS = ("cores", "gpu_memory_mb", "memory_mb")
REQUIREMENTS = ("accelerator", "cores", "gpu_memory_mb", "labels", "memory_mb", "node", "region")


def requirement_faults(requires: Any) -> list[Fault]:
    """All faults of a `requires`; empty when it is valid."""
    if not isinstance(requires, dict):
        return [Fault("requires", 'must be an object such as {"cores": 2}')]
    faults = [
        Fault(f"requires.{name}", f"is not a requirement; there are {', '.join(REQUIREMENTS)}")
        for name in requires
        if name not in REQUIREMENTS
    ]
    for name in AMOUNTS:
        value = requires.get(name)
        if name == "cores" and value == "all":
            continue
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_AMOUNT:
            faults.append(Fault(f"requires.{name}", f"must be a whole number from 1 to {MAX_AMOUNT}"))
    if "accelerator" in requires and requires["accelerator"] not in ACCELERATORS:
        faults.append(Fault("requires.accelerator", f"must be one of {', '.join(ACCELERATORS)}"))
    faults += [
        Fault(f"requires.{name}", "must be 1 to 64 letters, digits, '_' or '-'")
        for name in ("node", "region")
        if name in requires and not (isinstance(requires[name], str) and is_token(requires[name]))
    ]
    labels = requires.get("labels")
    if labels is not None and not (
        isinstance(labels, dict)
        and all(isinstance(text, str) and is_sendable(text) for pair in labels.items() for text in pair)
    ):
        faults.append(Fault("requires.labels", 'must be an object of texts such as {"disk": "nvme"}'))
    return faults


def is_sendable(text: str) -> bool:
    """Whether `text` can be encoded as UTF-8: JSON may contain half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def canonical(requires: dict[str, Any]) -> dict[str, Any]:
    """The requirements in the canonical form, which determines the pool together with `class_of`.

    One core (any machine has it) and "all" cores (of whatever node runs the task) require nothing of a node, so they
    make no pool.
    """
    required = {name: value for name, value in sorted(requires.items()) if value not in (None, "", {})}
    if required.get("cores") in (1, "all"):
        del required["cores"]
    if "labels" in required:
        required["labels"] = dict(sorted(required["labels"].items()))
    return required


def class_of(requires: dict[str, Any]) -> dict[str, Any]:
    """The class of a set of requirements, in canonical form: the amounts rounded down to a step.

    A lane is a Raft group, so there must not be one for each number of megabytes that somebody asks for. A node pulls
    from the lanes whose class it meets, and checks the exact requirements of each task (`node/work/admission.py`).
    """
    required = canonical(requires)
    return required | {name: step_below(required[name]) for name in AMOUNTS if name in required}


def step_below(amount: int) -> int:
    """The largest step that is not above `amount`: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20 … four to a doubling."""
    step = 1 << max(0, amount.bit_length() - 3)
    return amount // step * step


def pool_name(requires: dict[str, Any]) -> str:
    """`any`, `node-<id>` for one named node, else `p-` and 10 hex digits of the class."""
    required = class_of(requires)
    if not required:
        return ANY
    if set(required) == {"node"}:
        return f"node-{required['node']}"
    text = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return f"p-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def lane_for(
    kind: str, requires: dict[str, Any], urgency: str, origin: str = "", regions: Collection[str] = ()
) -> Lane:
    """The lane of a task. `regions`: the regions of the mesh's nodes, "" for nodes without a region.

    An origin in a region without nodes gets no lane of its own: otherwise submitters could create any number of lanes.
    Raises: ValueError for an unknown urgency.
    """
    if urgency not in URGENCIES:
        raise ValueError(f"urgency must be one of {', '.join(URGENCIES)}")
    pool = pool_name(requires)
    if pool == ANY and origin and len(regions) > 1 and origin in regions:
        pool = f"{ANY}@{origin}"
    return kind, pool, urgency


def is_open(pool: str) -> bool:
    """Whether every node may pull from the pool."""
    return pool == ANY or pool.startswith(f"{ANY}@")


def region_of(pool: str) -> str:
    """The region where the work of a pool comes from; "" when it has none."""
    return pool.partition("@")[2]


def pull_priority(pool: str, region: str, rank: int) -> int:
    """The priority, 0 (first) to 9, of a pull request by a node in `region` with `rank` for the kind.

    If the pool has an origin, the nodes of that region come before all others, each group ordered by rank. Rank 9 stays
    9: those nodes are leaving or may be dead.
    """
    origin = region_of(pool)
    if not origin or rank >= LAST:
        return rank
    return rank // 2 if origin == region else min(LAST - 1, LAST // 2 + 1 + rank // 2)


def meets(requires: dict[str, Any], node: NodeRecord) -> tuple[str, ...]:
    """Why `node` can't run tasks with these requirements, a phrase each; empty when it can."""
    required, have = canonical(requires), node.capabilities
    unmet: list[str] = []
    if "node" in required and required["node"] not in (node.id, node.name):
        unmet.append(f"is not the node {required['node']}")
    if "region" in required and required["region"] != node.region:
        unmet.append(f"is not in region {required['region']}")
    if required.get("cores", 1) > node.slots:
        unmet.append(f"has {node.slots} of {required['cores']} cores")
    if required.get("memory_mb", 0) * 1_048_576 > have.memory_bytes:
        unmet.append(f"has {have.memory_bytes // 1_048_576} of {required['memory_mb']} MB of memory")
    accelerator, gpu_memory_mb = required.get("accelerator"), required.get("gpu_memory_mb", 0)
    if accelerator or gpu_memory_mb:
        fitting = [
            device
            for device in have.accelerators
            if accelerator in (None, device.type) or (accelerator == "gpu" and device.type in ("cuda", "rocm", "mps"))
        ]
        if not fitting:
            unmet.append(f"has no {accelerator or 'GPU'}")
        elif max(device.memory_bytes for device in fitting) < gpu_memory_mb * 1_048_576:
            unmet.append(f"has less than {gpu_memory_mb} MB of memory on any fitting accelerator")
    labels = required.get("labels", {})
    unmet += [f"has no label {key}={value}" for key, value in labels.items() if node.labels.get(key) != value]
    return tuple(unmet)


def runs(kind: str, node: NodeRecord) -> str:
    """Why `node` can't run `kind`; "" when it can."""
    for info in node.capabilities.kinds:
        if info.kind == kind:
            return "" if info.available else (info.reason or f"can't run {kind}")
    return f"does not know {kind}"


def pulls_from(pool: str, requires: dict[str, Any] | None, node: NodeRecord) -> bool:
    """Whether `node` may pull from a pool; `requires` is None while the record of the pool is unknown."""
    if is_open(pool):
        return True
    if pool.startswith("node-"):
        return pool[5:] in (node.id, node.name)
    return requires is not None and not meets(requires, node)


def cores_for(requires: dict[str, Any], declared: int | str, slots: int) -> int:
    """The cores of a task on a node with `slots`: what it requires, else what its kind declares."""
    cores = requires.get("cores") or declared
    return slots if cores == "all" else min(int(cores), slots)
