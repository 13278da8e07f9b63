"""Selects the device and the precision of `ml_training`, and measures its peak memory."""

from __future__ import annotations

import resource
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.kinds.ml_training import MlTrainingPayload
from node.executor.context import InputFault


class NoDevice(ImportError):
    """This node lacks the requested device; another node may have it."""


@dataclass(frozen=True)
class Place:
    """A device, and the precision of products on it."""

    device: str
    """cpu, cuda or mps"""
    name: str
    precision: str
    """fp32, bf16 or fp16"""
    why: str
    """The reason for the precision, as a phrase."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context manager for the forward pass."""
        import torch

        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        reduced = self.precision in kinds
        return torch.autocast(self.device, kinds.get(self.precision, torch.bfloat16), enabled=reduced)

    def finish(self) -> None:
        """Wait for the device: calls return before it has finished."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def choose(payload: MlTrainingPayload, before: str = "") -> Place:
    """The place for a payload. `before`: the precision of earlier runs of the task, which is kept if possible.

    Raises: NoDevice when the node lacks the requested device; InputFault when that does not support `precision`.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    device = next(name for name in available if available[name]) if payload.device == "auto" else payload.device
    if not available[device]:
        raise NoDevice(f'it has no {device} device for PyTorch; require one with {{"accelerator": "gpu"}}')
    name = torch.cuda.get_device_name() if device == "cuda" else {"mps": "Apple GPU"}.get(device, "cpu")
    if payload.precision == "fp16" and device != "cuda":
        raise InputFault("precision", f"must be fp32 or bf16 on {device}: fp16 needs CUDA")
    if payload.precision != "auto":
        return Place(device, name, payload.precision, "as requested")
    if before and (before != "fp16" or device == "cuda"):
        return Place(device, name, before, "as in the runs before")
    return Place(device, name, *_fastest(device))


def _fastest(device: str) -> tuple[str, str]:
    """(precision, why)"""
    import torch

    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU has tensor cores for it"
        return "fp16", "this GPU has no bf16; losses are scaled"
    if device == "mps":
        return "fp32", "no lower precision is known to be faster on this GPU"
    # These names are private, so a missing one means no. Measured with AVX512-BF16 on one thread: 1.2 (small MLP) to
    # 1.85 times (ResNet-50) the speed of fp32. Without such instructions bf16 is emulated and slower.
    for feature, words in (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX512-BF16")):
        if getattr(torch.cpu, feature, bool)():
            return "bf16", f"this processor has {words}"
    return "fp32", "this processor has no instructions for bf16"


def memory(device: str, memory_mb: int) -> tuple[int, int]:
    """(free now, the most that the task may get), bytes: of a GPU, or the task's limit twice; 0: unknown."""
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()
    return memory_mb << 20, memory_mb << 20


def reset_peak(device: str) -> None:
    """Restart the measurement of the peak, where the system supports that."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform.startswith("linux"):
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # the peak is then that of the whole life of the process


def peak_bytes(device: str) -> int:
    """Peak memory: of tensors on a CUDA device, else of this process, PyTorch included."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform.startswith("linux"):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
