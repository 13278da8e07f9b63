"""llm_inference: selects model and back end, keeps the model loaded, and generates answers."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Collection
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

from mesh.kinds.llm_inference import LlmInferencePayload
from node.executor.context import Context, InputFault
from node.probes.models import Format, Model
from node.workloads.llm import cache, hub, models
from node.workloads.llm.models import ModelUnavailable
from node.workloads.llm.result import Progress, figures
from node.workloads.llm.shapes import is_size

#: The libraries of each back end, and the extra that installs them.
LIBRARIES = {
    "llama.cpp": (("xllamacpp",), "llm"),
    "torch": (("torch", "transformers", "safetensors"), "llm-torch"),
}
#: The back ends that can run a format, fastest first.
RUNS: dict[Format, tuple[str, ...]] = {
    "gguf": ("llama.cpp", "torch"),
    "safetensors": ("torch",),
    "random": ("torch",),
}


def run(payload: LlmInferencePayload, context: Context) -> dict[str, Any]:
    """Generate the answers, and return text, answers, model, weights, backend, device, dtype, counts and speeds.

    Where another model than the requested one ran, also requested_model and why_this_model.

    Raises: ModelUnavailable when this node lacks the model or a back end, which another may have; InputFault.
    """
    start = perf_counter()
    chosen = _load(payload, context)
    loaded, backend = chosen.loaded, chosen.backend
    prompts = payload.prompts or (payload.prompt,)
    progress = Progress(context.progress, len(prompts), payload.max_tokens)
    started = perf_counter()
    answers = loaded.answer(payload, progress)
    taken_s = perf_counter() - started
    result: dict[str, Any] = {
        "answers": [answer.as_dict() for answer in answers],
        "model": chosen.model.name,
        "weights": loaded.weights,
        "backend": backend,
        "device": loaded.device,
        "dtype": loaded.dtype,
        "parameters": loaded.parameters,
        "context": loaded.context,
        "threads": context.cores,
        "warm": not chosen.load_s,
        "load_s": round(chosen.load_s, 6),
        **figures(answers, taken_s if loaded.concurrent and len(answers) > 1 else 0.0),
    }
    if chosen.why:
        result |= {"requested_model": payload.model, "why_this_model": chosen.why}
    if payload.prompts is None:
        result |= {"text": answers[0].text, "finish_reason": answers[0].finish_reason}
        # The memory bandwidth of decoding, which reads all weights once per token.
        result["weights_read_gb_per_s"] = round(result["decode_tokens_per_s"] * loaded.weight_bytes / 1e9, 3)
    cache.trim()
    return result | {"seconds": round(perf_counter() - start, 6)}


class _Chosen(NamedTuple):
    """The model that runs."""

    model: Model
    backend: str
    loaded: Any
    load_s: float
    why: str = ""
    """Why another model than the requested one runs."""


def _load(payload: LlmInferencePayload, context: Context) -> _Chosen:
    """Load the requested model; where only its size was requested and that does not fit, the largest that does.

    Raises: ModelUnavailable, InputFault: those of the requested model.
    """
    folders = context.granted("models")
    if payload.hub is not None:
        return _load_model(hub.find(payload.hub, context.progress), payload, context)
    model = models.find(payload.model, folders)
    try:
        return _load_model(model, payload, context)
    except (ModelUnavailable, cache.LimitTooLow) as error:
        if not is_size(payload.model):
            raise
        problem, refusal = error.problem if isinstance(error, InputFault) else str(error), error
    for other in models.alternatives(payload.model, folders):
        try:
            chosen = _load_model(other, payload, context)
        except (ModelUnavailable, InputFault):
            continue
        what = "installed model" if other.format != "random" else "size, with random weights,"
        return chosen._replace(
            why=f"{payload.model} does not run here: {problem}. This is the largest {what} that fits"
        )
    raise refusal


def _load_model(model: Model, payload: LlmInferencePayload, context: Context) -> _Chosen:
    torch_gpu = payload.device == "auto" and _only_torch_has_gpu()
    backend = choose(model.format, payload.backend, _installed(), torch_gpu)
    if backend == "llama.cpp":
        from node.workloads.llm import llama_cpp as engine
    else:
        from node.workloads.llm import pytorch as engine
    loaded, load_s = engine.load_model(model, payload, context)
    return _Chosen(model, backend, loaded, load_s)


def choose(form: Format, requested: str, installed: Collection[str], only_torch_has_gpu: bool = False) -> str:
    """The back end for a model of format `form`. `requested`: auto, or a back end.

    Raises: ModelUnavailable when no back end for the format is installed; InputFault when `requested` can't run it.
    """
    capable = RUNS[form]
    if requested != "auto" and requested not in capable:
        raise InputFault("backend", f"is {requested}, which can't run this model ({form}); {capable[0]} can")
    if requested != "auto":
        capable = (requested,)
    available = [name for name in capable if name in installed]
    if not available:
        libraries, extra = LIBRARIES[capable[0]]
        raise ModelUnavailable(f"it lacks {' and '.join(libraries)}: pip install 'queztl[{extra}]'")
    # llama.cpp is faster on a processor, but PyTorch on a GPU is faster than that.
    return available[-1] if only_torch_has_gpu else available[0]


def _installed() -> list[str]:
    return [
        name
        for name, (libraries, _) in LIBRARIES.items()
        if all(importlib.util.find_spec(library) is not None for library in libraries)
    ]


@lru_cache
def _only_torch_has_gpu() -> bool:
    """Return whether PyTorch can use a GPU that the installed llama.cpp can't; imports PyTorch only if there is one."""
    if sys.platform == "darwin" or not any(map(os.path.exists, ("/dev/nvidia0", "/dev/kfd", "/dev/dxg"))):
        return False
    if set(_installed()) != set(LIBRARIES):
        return False
    import torch

    from node.workloads.llm import llama_cpp

    return torch.cuda.is_available() and not llama_cpp.has_gpu()
