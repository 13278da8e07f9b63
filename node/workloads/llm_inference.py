"""llm_inference: finds the model and what runs it, keeps it loaded, answers, tells how fast."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Collection
from functools import lru_cache
from time import perf_counter
from typing import Any

from mesh.kinds.llm_inference import LlmInferencePayload
from node.executor.context import Context, InputFault
from node.probes.models import Format
from node.workloads.llm import cache, hub, models
from node.workloads.llm.models import NotHere
from node.workloads.llm.result import Told, figures

#: What each back end imports, and the extra that installs it.
LIBRARIES = {
    "llama.cpp": (("xllamacpp",), "llm"),
    "torch": (("torch", "transformers", "safetensors"), "llm-torch"),
}
#: The back ends that can run a format, the faster one first.
RUNS: dict[Format, tuple[str, ...]] = {
    "gguf": ("llama.cpp", "torch"),
    "safetensors": ("torch",),
    "random": ("torch",),
}


def run(payload: LlmInferencePayload, context: Context) -> dict[str, Any]:
    """{"text", "answers", "model", "weights", "backend", "device", "dtype", counts and speeds}

    Raises: NotHere (unavailable, another node may do) without the model or what runs it; InputFault.
    """
    start = perf_counter()
    if payload.hub is not None:
        model = hub.find(payload.hub, context.progress)
    else:
        model = models.find(payload.model, context.granted("models"))
    torch_gpu = payload.device == "auto" and _only_torch_has_gpu()
    backend = choose(model.format, payload.backend, _installed(), torch_gpu)
    if backend == "llama.cpp":
        from node.workloads.llm import llama_cpp as machinery
    else:
        from node.workloads.llm import pytorch as machinery
    loaded, load_s = machinery.ready(model, payload, context)
    prompts = payload.prompts or (payload.prompt,)
    told = Told(context.progress, len(prompts), payload.max_tokens)
    began = perf_counter()
    answers = loaded.answer(payload, told)
    taken_s = perf_counter() - began
    result: dict[str, Any] = {
        "answers": [one.as_dict() for one in answers],
        "model": model.name,
        "weights": loaded.weights,
        "backend": backend,
        "device": loaded.device,
        "dtype": loaded.dtype,
        "parameters": loaded.parameters,
        "context": loaded.context,
        "threads": context.cores,
        "warm": not load_s,
        "load_s": round(load_s, 6),
        **figures(answers, taken_s if loaded.side_by_side and len(answers) > 1 else 0.0),
    }
    if payload.prompts is None:
        result |= {"text": answers[0].text, "finish_reason": answers[0].finish_reason}
        # What decoding really moves: all weights, once a token.
        result["weights_read_gb_per_s"] = round(result["decode_tokens_per_s"] * loaded.weight_bytes / 1e9, 3)
    cache.trim()
    return result | {"seconds": round(perf_counter() - start, 6)}


def choose(form: Format, wanted: str, installed: Collection[str], only_torch_has_gpu: bool = False) -> str:
    """The back end for a model of format `form`; `wanted`: auto, or a back end.

    Raises: NotHere when none that can run it is installed; InputFault when `wanted` can't run it.
    """
    able = RUNS[form]
    if wanted != "auto" and wanted not in able:
        raise InputFault("backend", f"is {wanted}, which can't run this model ({form}); {able[0]} can")
    if wanted != "auto":
        able = (wanted,)
    there = [name for name in able if name in installed]
    if not there:
        libraries, extra = LIBRARIES[able[0]]
        raise NotHere(f"it lacks {' and '.join(libraries)}: pip install 'queztl[{extra}]'")
    # A GPU beats what makes llama.cpp the faster one on a processor.
    return there[-1] if only_torch_has_gpu else there[0]


def _installed() -> list[str]:
    return [
        name
        for name, (libraries, _) in LIBRARIES.items()
        if all(importlib.util.find_spec(library) is not None for library in libraries)
    ]


@lru_cache
def _only_torch_has_gpu() -> bool:
    """Whether PyTorch can use a GPU that the installed llama.cpp can't. PyTorch, is loaded only where one is seen."""
    if sys.platform == "darwin" or not any(map(os.path.exists, ("/dev/nvidia0", "/dev/kfd", "/dev/dxg"))):
        return False
    if set(_installed()) != set(LIBRARIES):
        return False
    import torch

    from node.workloads.llm import llama_cpp

    return torch.cuda.is_available() and not llama_cpp.has_gpu()
