"""Probes the machine: processor, usable cores, memory and disk, within the limits of its container."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

T = TypeVar("T")
#: The CPU features that affect the speed of workloads; a processor lists some hundred others.
_FEATURES = frozenset(
    {
        "sse4_1",
        "sse4_2",
        "ssse3",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "bmi2",
        "aes",
        "sha_ni",
        "vaes",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "neon",
        "asimd",
        "asimddp",
        "asimdhp",
        "fphp",
        "sha1",
        "sha2",
        "sha512",
        "sve",
        "sve2",
        "i8mm",
        "bf16",
        "crc32",
        "pmull",
    }
)
#: ARM processors report only numbers: (implementer, part) -> name.
_ARM_PARTS = {
    ("0x41", "0xd03"): "ARM Cortex-A53",
    ("0x41", "0xd08"): "ARM Cortex-A72",
    ("0x41", "0xd0b"): "ARM Cortex-A76",
    ("0x41", "0xd0c"): "ARM Neoverse N1",
    ("0x41", "0xd40"): "ARM Neoverse V1",
    ("0x41", "0xd49"): "ARM Neoverse N2",
    ("0x41", "0xd4f"): "ARM Neoverse V2",
    ("0x61", "0x022"): "Apple M1",
    ("0x61", "0x032"): "Apple M2",
}
#: What macOS calls the same features on Apple silicon.
_DARWIN_ARM = {
    "neon": "hw.optional.neon",
    "sha2": "hw.optional.arm.FEAT_SHA256",
    "sha512": "hw.optional.arm.FEAT_SHA512",
    "aes": "hw.optional.arm.FEAT_AES",
    "bf16": "hw.optional.arm.FEAT_BF16",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "asimddp": "hw.optional.arm.FEAT_DotProd",
}


@dataclass(frozen=True)
class Machine:
    """The part of a node's capabilities that describes the machine."""

    os: str
    arch: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: int
    cores_physical: int
    memory_bytes: int
    disk_free_bytes: int


def probe_machine(folder: Path, root: Path = Path("/")) -> Machine:
    """This machine as a process on it sees it. `folder`: where free disk is measured; `root`: of the file system."""
    if platform.system() == "Darwin":
        model, features = _darwin_cpu()
    else:
        model, features = parse_cpuinfo(_text(root / "proc/cpuinfo"))
    logical = _affinity()
    memory_limit = cgroup_memory_bytes(root)
    memory = psutil.virtual_memory().total
    return Machine(
        os=f"{platform.system()} {platform.release()}",
        arch=platform.machine(),
        cpu_model=model or platform.processor() or "unknown",
        cpu_features=features,
        cores=usable_cores(logical, cgroup_cores(root)),
        cores_physical=psutil.cpu_count(logical=False) or logical,
        memory_bytes=min(memory, memory_limit) if memory_limit else memory,
        disk_free_bytes=psutil.disk_usage(str(folder)).free,
    )


def usable_cores(logical: int, quota: float | None) -> int:
    """Whole cores that a process may use: its CPU affinity, limited by the CPU quota of its container."""
    return max(1, logical if quota is None else min(logical, int(quota + 0.05)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(path: Path) -> str:
    """The text of a file; "" when it can't be read, because kernels and containers differ in the files they have."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# --- processor -------------------------------------------------------------------------------------


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """(model, features) from the text of /proc/cpuinfo, x86 or ARM; "" and () where they are missing."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts.setdefault(name.strip().lower(), value.strip())
    part = (facts.get("cpu implementer", ""), facts.get("cpu part", ""))
    model = facts.get("model name") or _ARM_PARTS.get(part) or facts.get("hardware") or facts.get("model", "")
    if model.isdigit():
        model = ""
    listed = (facts.get("flags") or facts.get("features") or "").lower().split()
    return model, tuple(sorted(_FEATURES.intersection(listed)))


def _darwin_cpu() -> tuple[str, tuple[str, ...]]:
    listed = subprocess.run(["sysctl", "-a"], capture_output=True, text=True, timeout=5, check=False).stdout
    return parse_sysctl(listed)


def parse_sysctl(text: str) -> tuple[str, tuple[str, ...]]:
    """(model, features) from the output of `sysctl -a` on macOS, Intel or Apple silicon."""
    facts = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    listed = f"{facts.get('machdep.cpu.features', '')} {facts.get('machdep.cpu.leaf7_features', '')}"
    found = {name.lower().replace(".", "_") for name in listed.split()}
    found |= {name for name, key in _DARWIN_ARM.items() if facts.get(key) == "1"}
    # Intel Macs call avx AVX1.0.
    found |= {"avx"} if "avx1_0" in found else set()
    return facts.get("machdep.cpu.brand_string", ""), tuple(sorted(_FEATURES & found))


# --- limits of the container -----------------------------------------------------------------------


def parse_cpu_max(text: str) -> float | None:
    """The cores that cpu.max of cgroup v2 ("150000 100000", "max 100000") allows; None: no limit."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or not int(parts[0]) or not int(parts[1]):
        return None
    return int(parts[0]) / int(parts[1])


def parse_bytes_limit(text: str) -> int | None:
    """The bytes that memory.max (v2) or memory.limit_in_bytes (v1) allows; None: no limit.

    Version 1 expresses "no limit" as a number near 2**63.
    """
    text = text.strip()
    return int(text) if text.isdigit() and 0 < int(text) < 1 << 60 else None


def parse_cgroups(text: str) -> dict[str, str]:
    """Controllers ("cpu,cpuacct") -> path, from /proc/self/cgroup; the one hierarchy of version 2 has the key ""."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return {parts[1]: parts[2] for parts in lines if len(parts) == 3}


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """The lowest CPU quota, in cores, of this process's cgroup and those above it; None: no limit."""

    def quota_v1(folder: Path) -> float | None:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        return parse_cpu_max(f"{quota} {period}")

    def quota_v2(folder: Path) -> float | None:
        return parse_cpu_max(_text(folder / "cpu.max"))

    return min(_limits(root, "cpu", quota_v2, quota_v1), default=None)


def cgroup_memory_bytes(root: Path = Path("/")) -> int | None:
    """The lowest memory limit, bytes, of this process's cgroup and those above it; None: no limit."""

    def limit_v2(folder: Path) -> int | None:
        return parse_bytes_limit(_text(folder / "memory.max"))

    def limit_v1(folder: Path) -> int | None:
        return parse_bytes_limit(_text(folder / "memory.limit_in_bytes"))

    return min(_limits(root, "memory", limit_v2, limit_v1), default=None)


def _limits(root: Path, controller: str, v2: Callable[[Path], T | None], v1: Callable[[Path], T | None]) -> list[T]:
    """The limits that `v2` or `v1` reads from the cgroup folders of this process."""
    groups = parse_cgroups(_text(root / "proc/self/cgroup"))
    mount = root / "sys/fs/cgroup"
    limits = [v2(folder) for folder in _upwards(mount, groups.get("", "/"))]
    for names, path in groups.items():
        if controller in names.split(","):
            # Mounted under the names of all its controllers; most systems link each single name to that as well.
            limits += [v1(folder) for name in {names, controller} for folder in _upwards(mount / name, path)]
    return [limit for limit in limits if limit is not None]


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The folders of the cgroup and those above it, the mount last; a container may see nothing but the mount."""
    parts = [part for part in path.split("/") if part not in ("", "..", ".")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])
