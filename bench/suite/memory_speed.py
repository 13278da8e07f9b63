"""Measures the current speed of the machine's memory, which a shared host can reduce without the system noticing.

A virtual machine sees the processor time that its host steals, but not that other guests fill the memory bus or the
shared cache: then all memory-bound work is slower, and no counter says why.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

#: Size of one copy, bytes: larger than any cache.
COPIED_BYTES = 64 * 2**20
#: Copies per sample; the sample is their median.
COPIES = 5


class MemorySpeed:
    """Holds two arrays and copies one to the other."""

    def __init__(self) -> None:
        self._arrays: tuple[Any, Any] | None = None

    def measure(self) -> float:
        """GB read and written per second by one thread, now. Takes some hundredths of a second."""
        import numpy as np

        if self._arrays is None:
            self._arrays = np.ones(COPIED_BYTES // 8), np.zeros(COPIED_BYTES // 8)
        source, target = self._arrays
        rates: list[float] = []
        for _ in range(COPIES):
            began = perf_counter()
            np.copyto(target, source)
            rates.append(2 * COPIED_BYTES / 1e9 / (perf_counter() - began))
        return round(median(rates), 3)
