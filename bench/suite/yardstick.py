"""How fast the machine's memory is at this moment: what a shared host takes away without the system noticing it.

A virtual machine sees the processor time that its host takes (`stolen`), but not that other guests fill the memory bus
or the shared cache: then everything that memory bounds is slower, and nothing says why.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

#: One copy, bytes: larger than any cache.
COPIED_BYTES = 64 * 2**20
#: Copies in one sample, whose median it is.
COPIES = 5


class Yardstick:
    """Keeps two pieces of memory and copies one to the other."""

    def __init__(self) -> None:
        self._pieces: tuple[Any, Any] | None = None

    def measure(self) -> float:
        """GB read and written a second by one thread, now. Takes some hundredths of a second."""
        import numpy as np

        if self._pieces is None:
            self._pieces = np.ones(COPIED_BYTES // 8), np.zeros(COPIED_BYTES // 8)
        source, target = self._pieces
        rates = []
        for _ in range(COPIES):
            began = perf_counter()
            np.copyto(target, source)
            rates.append(2 * COPIED_BYTES / 1e9 / (perf_counter() - began))
        return round(median(rates), 3)
