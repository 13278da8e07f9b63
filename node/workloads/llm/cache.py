"""Keeps models loaded between tasks while there is enough free memory.

The cache belongs to the worker process and ends with it. `node.executor.dispatch` gives a task to the worker that ran
the same kind last.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from node.executor.context import InputFault
from node.workloads.llm.models import ModelUnavailableNow

#: What distinguishes a loaded model: back end, file and settings.
Key = tuple[Any, ...]
#: The loaded models, least recently used first.
_models: dict[Key, Any] = {}
#: A model stays loaded after its task only while at least this share of the machine's memory is free.
FREE_PART = 0.2
MIB = 1 << 20


class LimitTooLow(InputFault):
    """The memory limit of the task is too low for the model."""


def have(fits: Callable[[Key], bool]) -> Any | None:
    """A loaded model whose key `fits` accepts, or None; marks it as used."""
    for key in reversed(_models):
        if fits(key):
            _models[key] = model = _models.pop(key)
            return model
    return None


def load(key: Key, make: Callable[[], Any], need_bytes: int, memory_mb: int) -> tuple[Any, float]:
    """Load a model with `make`: (the model, seconds). `memory_mb`: the memory limit of the task; 0: none.

    Frees the least recently used models until all fit into `memory_mb` together. Raises, before it loads: LimitTooLow
    when the limit is too low for this model alone, ModelUnavailableNow when the machine has too little free memory.
    """
    start = perf_counter()
    need_mb = -(-need_bytes // MIB)
    if memory_mb and need_mb > memory_mb:
        raise LimitTooLow(
            "model",
            f"needs about {need_mb} MB, and this task has {memory_mb} MB: submit it with requires "
            f'{{"memory_mb": {need_mb}}}, which also selects a machine with enough memory',
        )
    while _models and memory_mb and need_bytes + sum(kept.need_bytes for kept in _models.values()) > memory_mb * MIB:
        drop_oldest()
    while _models and psutil.virtual_memory().available < need_bytes:
        drop_oldest()
    free_mb = psutil.virtual_memory().available // MIB
    if need_mb > free_mb:
        raise ModelUnavailableNow(f"the model needs about {need_mb} MB, and the machine has {free_mb} MB free")
    _models[key] = model = make()
    return model, perf_counter() - start


def drop_oldest() -> None:
    """Free the least recently used model."""
    model = _models.pop(next(iter(_models)))
    model.close()
    del model
    gc.collect()


def trim() -> None:
    """Free models while the machine has too little free memory; called after each task."""
    while _models:
        memory = psutil.virtual_memory()
        if memory.available >= FREE_PART * memory.total:
            return
        drop_oldest()


def forget() -> None:
    """Free all models."""
    while _models:
        drop_oldest()
