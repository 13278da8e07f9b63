"""Models stay loaded in their worker between tasks, for as long as memory is not needed otherwise.

What is kept belongs to the worker process and goes with it. `node.executor.dispatch` hands a task to the worker that
did the same kind last.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from node.executor.context import InputFault
from node.workloads.llm.models import NotHere

#: What distinguishes a loaded model: back end, file and settings.
Key = tuple[Any, ...]
#: Loaded models, the one used last at the end.
_models: dict[Key, Any] = {}
#: A model is kept after its task only while at least this part of the machine's memory is free.
FREE_PART = 0.2
MIB = 1 << 20


def have(fits: Callable[[Key], bool]) -> Any | None:
    """A loaded model whose key `fits`, now the one used last."""
    for key in reversed(_models):
        if fits(key):
            _models[key] = model = _models.pop(key)
            return model
    return None


def load(key: Key, make: Callable[[], Any], need_bytes: int, memory_mb: int) -> tuple[Any, float]:
    """(the model that `make` loads, the seconds that took); `memory_mb`: what the task may add, 0: no limit.

    Models used longest ago go until all fit into `memory_mb` together. Raises, before anything is loaded: InputFault
    when the task was given too little for this one alone, NotHere when the machine has too little left.
    """
    start = perf_counter()
    need_mb = -(-need_bytes // MIB)
    if memory_mb and need_mb > memory_mb:
        raise InputFault(
            "model",
            f"takes about {need_mb} MB, and this task was given {memory_mb} MB: submit it with requires "
            f'{{"memory_mb": {need_mb}}}, which also finds a machine that has as much',
        )
    while _models and memory_mb and need_bytes + sum(one.need_bytes for one in _models.values()) > memory_mb * MIB:
        drop_oldest()
    while _models and psutil.virtual_memory().available < need_bytes:
        drop_oldest()
    free_mb = psutil.virtual_memory().available // MIB
    if need_mb > free_mb:
        raise NotHere(f"the model takes about {need_mb} MB, and the machine has {free_mb} MB free now")
    _models[key] = model = make()
    return model, perf_counter() - start


def drop_oldest() -> None:
    """Frees the model that was used longest ago."""
    model = _models.pop(next(iter(_models)))
    model.close()
    del model
    gc.collect()


def trim() -> None:
    """After a task: frees models while the machine has too little memory left."""
    while _models:
        memory = psutil.virtual_memory()
        if memory.available >= FREE_PART * memory.total:
            return
        drop_oldest()


def forget() -> None:
    """Frees all."""
    while _models:
        drop_oldest()
