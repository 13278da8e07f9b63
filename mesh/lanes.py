"""Which lane a task goes into, and which lanes a node may pull from. Pure.

A lane is (kind, pool, urgency). A pool is a set of requirements in canonical form under a short stable name;
`any` is the empty one, `node-<id>` the lane of one named node. In a mesh of several regions work that asks for
nothing, but says where it comes from, goes into `any@<region>`: all may pull from it, the near ones first. Every
accepted requirement is listed here.
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
#: The lowest priority of a pull.
LAST = 9
ACCELERATORS = ("gpu", "cuda", "rocm", "mps", "ane", "tpu")
#: More cores or megabytes than this no machine has.
MOST = 1_000_000_000
REQUIREMENTS = ("accelerator", "cores", "gpu_memory_mb", "labels", "memory_mb", "node", "region")


def requirement_faults(requires: Any) -> list[Fault]:
    """Everything that is wrong with a `requires`; empty when it may be used."""
    if not isinstance(requires, dict):
        return [Fault("requires", 'must be an object such as {"cores": 2}')]
    faults = [
        Fault(f"requires.{name}", f"is no requirement; there are {', '.join(REQUIREMENTS)}")
        for name in requires
        if name not in REQUIREMENTS
    ]
    for name in ("cores", "gpu_memory_mb", "memory_mb"):
        value = requires.get(name)
        if name == "cores" and value == "all":
            continue
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            faults.append(Fault(f"requires.{name}", f"must be a whole number from 1 to {MOST}"))
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
    """Whether UTF-8 can carry it: JSON may hold half of a surrogate pair."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def canonical(requires: dict[str, Any]) -> dict[str, Any]:
    """The same requirements in the one form that decides the pool.

    Cores that any machine has (1) and "all" (whatever the node has) ask nothing of a node, so they make no pool.
    """
    wanted = {name: value for name, value in sorted(requires.items()) if value not in (None, "", {})}
    if wanted.get("cores") in (1, "all"):
        del wanted["cores"]
    if "labels" in wanted:
        wanted["labels"] = dict(sorted(wanted["labels"].items()))
    return wanted


def pool_name(requires: dict[str, Any]) -> str:
    """`any`, `node-<id>` for one named node, else `p-` and 10 hex digits of the canonical form."""
    wanted = canonical(requires)
    if not wanted:
        return ANY
    if set(wanted) == {"node"}:
        return f"node-{wanted['node']}"
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return f"p-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def lane_for(
    kind: str, requires: dict[str, Any], urgency: str, origin: str = "", regions: Collection[str] = ()
) -> Lane:
    """The lane a task of `kind` goes into; `regions`: those of the mesh's nodes, "" for nodes that name none.

    An origin where no node is makes no lane of its own, or anybody could make any number of them.
    """
    if urgency not in URGENCIES:
        raise ValueError(f"urgency must be one of {', '.join(URGENCIES)}")
    pool = pool_name(requires)
    if pool == ANY and origin and len(regions) > 1 and origin in regions:
        pool = f"{ANY}@{origin}"
    return kind, pool, urgency


def is_open(pool: str) -> bool:
    """Whether any node may pull from it."""
    return pool == ANY or pool.startswith(f"{ANY}@")


def region_of(pool: str) -> str:
    """Where the work of a pool comes from; "" when nobody said, or it does not matter."""
    return pool.partition("@")[2]


def near_first(pool: str, region: str, rank: int) -> int:
    """The priority of a pull, 0 (first) to 9, of a node in `region` whose rank for the kind is `rank`.

    Where work has an origin all near nodes come before all far ones, by rank within each; 9 stays 9: those leave,
    or may be dead.
    """
    origin = region_of(pool)
    if not origin or rank >= LAST:
        return rank
    return rank // 2 if origin == region else min(LAST - 1, LAST // 2 + 1 + rank // 2)


def meets(requires: dict[str, Any], node: NodeRecord) -> tuple[str, ...]:
    """Why `node` can't take work with these requirements; empty when it can."""
    wanted, have, unmet = canonical(requires), node.capabilities, []
    if "node" in wanted and wanted["node"] not in (node.id, node.name):
        unmet.append(f"is not the node {wanted['node']}")
    if "region" in wanted and wanted["region"] != node.region:
        unmet.append(f"is not in region {wanted['region']}")
    if wanted.get("cores", 1) > node.slots:
        unmet.append(f"has {node.slots} of {wanted['cores']} cores")
    if wanted.get("memory_mb", 0) * 1_048_576 > have.memory_bytes:
        unmet.append(f"has {have.memory_bytes // 1_048_576} of {wanted['memory_mb']} MB of memory")
    accelerator, gpu_memory_mb = wanted.get("accelerator"), wanted.get("gpu_memory_mb", 0)
    if accelerator or gpu_memory_mb:
        fitting = [
            one
            for one in have.accelerators
            if accelerator in (None, one.type) or (accelerator == "gpu" and one.type in ("cuda", "rocm", "mps"))
        ]
        if not fitting:
            unmet.append(f"has no {accelerator or 'GPU'}")
        elif max(one.memory_bytes for one in fitting) < gpu_memory_mb * 1_048_576:
            unmet.append(f"has less than {gpu_memory_mb} MB of memory on any fitting accelerator")
    labels = wanted.get("labels", {})
    unmet += [f"has no label {key}={value}" for key, value in labels.items() if node.labels.get(key) != value]
    return tuple(unmet)


def runs(kind: str, node: NodeRecord) -> str:
    """Why `node` can't run `kind`; "" when it can."""
    for one in node.capabilities.kinds:
        if one.kind == kind:
            return "" if one.available else (one.reason or f"can't run {kind}")
    return f"does not know {kind}"


def pulls_from(pool: str, requires: dict[str, Any] | None, node: NodeRecord) -> bool:
    """Whether `node` may take work of a pool; `requires` is None while the pool's record is unknown."""
    if is_open(pool):
        return True
    if pool.startswith("node-"):
        return pool[5:] in (node.id, node.name)
    return requires is not None and not meets(requires, node)


def cores_for(requires: dict[str, Any], declared: int | str, slots: int) -> int:
    """How many cores a task is given on a node of `slots`: what it asks, else what its kind declares."""
    wanted = requires.get("cores") or declared
    return slots if wanted == "all" else min(int(wanted), slots)
