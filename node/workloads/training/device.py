"""Where `ml_training` runs and in which precision, with the reason for it; and what memory it took at most."""

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
    """This node lacks the device that was asked for: another one may have it."""


@dataclass(frozen=True)
class Place:
    """A device, and how products are computed on it."""

    device: str
    """cpu, cuda or mps"""
    name: str
    precision: str
    """fp32, bf16 or fp16"""
    why: str
    """Why this precision, as a phrase."""

    def autocast(self) -> AbstractContextManager[Any]:
        """What the forward pass runs in."""
        import torch

        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        reduced = self.precision in kinds
        return torch.autocast(self.device, kinds.get(self.precision, torch.bfloat16), enabled=reduced)

    def finish(self) -> None:
        """Wait for the device: calls return before their work is done."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def choose(payload: MlTrainingPayload, before: str = "") -> Place:
    """The place for `payload`; `before`: the precision of the runs before this one, which is kept if it can be.

    Raises: NoDevice, when the device asked for is not here; InputFault, when it can't compute in `precision`.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    device = next(name for name in there if there[name]) if payload.device == "auto" else payload.device
    if not there[device]:
        raise NoDevice(f'no {device} that PyTorch can use is here; ask for one with requires {{"accelerator": "gpu"}}')
    name = torch.cuda.get_device_name() if device == "cuda" else {"mps": "Apple GPU"}.get(device, "cpu")
    if payload.precision == "fp16" and device != "cuda":
        raise InputFault("precision", f"must be fp32 or bf16 on {device}: fp16 needs CUDA")
    if payload.precision != "auto":
        return Place(device, name, payload.precision, "as asked for")
    if before and (before != "fp16" or device == "cuda"):
        return Place(device, name, before, "that of the runs before")
    return Place(device, name, *_fastest(device))


def _fastest(device: str) -> tuple[str, str]:
    """(precision, why)"""
    import torch

    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU has tensor cores for it"
        return "fp16", "this GPU has no bf16; losses are scaled"
    if device == "mps":
        return "fp32", "no gain is known on this GPU"
    # Private names, so absent ones are "no". Measured on AVX512-BF16, one thread: 1.2 (small MLP) to 1.85 times
    # (ResNet-50) the speed of fp32; without such instructions it is emulated and slower.
    for feature, words in (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX512-BF16")):
        if getattr(torch.cpu, feature, bool)():
            return "bf16", f"this processor has {words}"
    return "fp32", "this processor has no instructions for bf16"


def free_bytes(device: str, memory_mb: int) -> int:
    """What there is for the task: the free memory of a GPU, or the task's own limit; 0 when nobody knows."""
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return memory_mb << 20


def reset_peak(device: str) -> None:
    """From now on the peak is counted anew, where the system can."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform.startswith("linux"):
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # then the peak is that of the process' whole life


def peak_bytes(device: str) -> int:
    """Most memory taken: by tensors on a CUDA device, else by this process, PyTorch's own share included."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform.startswith("linux"):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
