"""Probes the accelerators of the machine: a table of small probes; one that fails costs only its own devices."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mesh.messages import Accelerator

log = logging.getLogger(__name__)

_CHILD_TIMEOUT_S = 4.0
#: PCI vendor -> (type, name) of what registers under /sys/class/accel.
_ACCEL_VENDORS = {
    0x1AE0: ("tpu", "Google TPU"),
    0x8086: ("npu", "Intel NPU"),
    0x1022: ("npu", "AMD XDNA NPU"),
    0x1DA3: ("hpu", "Intel Gaudi"),
    0x17CB: ("qaic", "Qualcomm Cloud AI"),
}
#: The same for render nodes that no other probe reports.
_RENDER_VENDORS = {0x8086: ("xpu", "Intel GPU")}


class NoProbe(Exception):
    """A probe could not run; the message gives the reason."""


def probe_accelerators(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> tuple[Accelerator, ...]:
    """The devices that all probes find; a probe that fails is logged. `root`: of the file system."""
    found: list[Accelerator] = []
    for name, probe in PROBES:
        try:
            found += probe(root, environ)
        except (NoProbe, OSError, ValueError, subprocess.SubprocessError) as error:
            log.warning("the %s probe failed; its devices are not used: %s", name, error)
    return tuple(found)


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.exists() else ""


# --- NVIDIA ----------------------------------------------------------------------------------------


def nvidia(root: Path, environ: Mapping[str, str]) -> list[Accelerator]:
    """NVIDIA GPUs, from NVML where its Python binding is installed, else from nvidia-smi."""
    if not (root / "proc/driver/nvidia").exists() and not (root / "dev/nvidiactl").exists():
        return []
    if importlib.util.find_spec("pynvml"):
        return _nvml()
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=_CHILD_TIMEOUT_S, check=True)
    return parse_nvidia_smi(answer.stdout)


def _nvml() -> list[Accelerator]:
    import pynvml

    def text(value: str | bytes) -> str:
        return value.decode() if isinstance(value, bytes) else value

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoProbe(f"NVML does not start: {error}") from None
    try:
        driver = text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [
            Accelerator("cuda", text(pynvml.nvmlDeviceGetName(h)), int(pynvml.nvmlDeviceGetMemoryInfo(h).total), driver)
            for h in handles
        ]
    except pynvml.NVMLError as error:
        raise NoProbe(f"NVML does not answer: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def parse_nvidia_smi(text: str) -> list[Accelerator]:
    """Devices from lines of "name, MiB of memory, driver"; memory shared with the host reads [N/A]."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3 and parts[0]:
            memory = int(parts[1]) * 1024 * 1024 if parts[1].isdigit() else 0
            found.append(Accelerator("cuda", parts[0], memory, parts[2]))
    return found


# --- AMD -------------------------------------------------------------------------------------------


def rocm(root: Path, environ: Mapping[str, str]) -> list[Accelerator]:
    """AMD GPUs that the compute driver of the kernel lists; needs no ROCm tools."""
    found = []
    driver = _read(root / "sys/module/amdgpu/version")
    for node in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*")):
        facts = parse_properties(_read(node / "properties"))
        if not facts.get("simd_count"):
            continue
        banks = [parse_properties(_read(bank)) for bank in node.glob("mem_banks/*/properties")]
        # Heap types 1 and 2 are memory of the device, public and private.
        memory = sum(bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in (1, 2))
        name = _read(node / "name") or "AMD GPU"
        target = gfx_name(facts.get("gfx_target_version", 0))
        found.append(Accelerator("rocm", f"{name} ({target})", memory, driver))
    return found


def parse_properties(text: str) -> dict[str, int]:
    """name -> number, from lines of "name number"."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def gfx_name(version: int) -> str:
    """ "gfx90a" for 90010: major, minor and stepping are two decimal digits each, the last one written in hex."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


# --- Apple -----------------------------------------------------------------------------------------


def apple(root: Path, environ: Mapping[str, str]) -> list[Accelerator]:
    """The Metal GPU, which shares the memory of the machine, and the Neural Engine of an Apple silicon chip."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return []
    query = ["sysctl", "-n", "machdep.cpu.brand_string", "hw.memsize"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=_CHILD_TIMEOUT_S, check=True)
    return parse_apple(answer.stdout, platform.mac_ver()[0])


def parse_apple(text: str, version: str) -> list[Accelerator]:
    """Devices from two lines: the name of the chip, the bytes of memory."""
    chip, memory = text.strip().splitlines()
    driver = f"macOS {version}"
    return [
        Accelerator("mps", f"{chip} GPU", int(memory), driver),
        Accelerator("ane", f"{chip} Neural Engine", 0, driver),
    ]


# --- others ----------------------------------------------------------------------------------------


def tpu(root: Path, environ: Mapping[str, str]) -> list[Accelerator]:
    """Edge TPUs by their device file; cloud TPUs that use VFIO by the environment of their machine."""
    found = [Accelerator("edgetpu", "Google Edge TPU") for _ in (root / "dev").glob("apex_*")]
    kind = environ.get("TPU_ACCELERATOR_TYPE", "")
    if kind and not _vendors(root / "sys/class/accel", "accel*", {0x1AE0: _ACCEL_VENDORS[0x1AE0]}):
        groups = [path for path in (root / "dev/vfio").glob("*") if path.name.isdigit()]
        found += [Accelerator("tpu", f"Google TPU {kind}") for _ in groups]
    return found


def accel_class(root: Path, environ: Mapping[str, str]) -> list[Accelerator]:
    """Devices in the accelerator class of the kernel, where the vendor is known."""
    return _vendors(root / "sys/class/accel", "accel*", _ACCEL_VENDORS)


def render_nodes(root: Path, environ: Mapping[str, str]) -> list[Accelerator]:
    """GPUs with a render node, where the vendor is known."""
    return _vendors(root / "sys/class/drm", "renderD*", _RENDER_VENDORS)


def _vendors(folder: Path, pattern: str, known: Mapping[int, tuple[str, str]]) -> list[Accelerator]:
    found = []
    for device in sorted(folder.glob(pattern)):
        vendor = _read(device / "device/vendor")
        if vendor and int(vendor, 16) in known:
            found.append(Accelerator(*known[int(vendor, 16)]))
    return found


Probe = Callable[[Path, Mapping[str, str]], Iterable[Accelerator]]
PROBES: tuple[tuple[str, Probe], ...] = (
    ("NVIDIA", nvidia),
    ("AMD ROCm", rocm),
    ("Apple", apple),
    ("TPU", tpu),
    ("accelerator class", accel_class),
    ("render node", render_nodes),
)
