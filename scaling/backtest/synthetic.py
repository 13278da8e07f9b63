"""Synthetic demands: generated from a seed, one kind for each way in which load arrives. Pure.

They are used where no trace is given, and show that a result is not luck with a few known series.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.random import Generator

#: Length of a step, seconds, and the number of steps of a series: sixteen days.
STEP_S, STEPS = 300.0, 16 * 288


def make(kind: str, seed: int, steps: int = STEPS) -> ndarray:
    """(steps): the loads of one series, none below 0; the same for the same kind and seed."""
    import numpy as np

    chance = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    return np.maximum(0.0, KINDS[kind](chance, np.arange(steps)))


def _noise(chance: Generator, steps: int, size: float) -> ndarray:
    """(steps): factors around 1, autocorrelated."""
    import numpy as np

    white = chance.normal(0.0, size, steps)
    for at in range(1, steps):
        white[at] = 0.6 * white[at - 1] + 0.8 * white[at]
    return np.exp(white)


def _pulses(chance: Generator, at: ndarray) -> ndarray:
    """A sharp pulse every hour or half hour, of varying height."""
    every, wide = int(chance.choice([6, 12])), int(chance.integers(1, 4))
    phase = int(chance.integers(0, every))
    heights = chance.normal(1.0, 0.08, len(at) // every + 2)[(at + phase) // every]
    pulse = ((at + phase) % every < wide) * heights * chance.uniform(20, 60)
    return (chance.uniform(10, 25) + pulse) * _noise(chance, len(at), 0.03)


def _weekly(chance: Generator, at: ndarray) -> ndarray:
    """Days and weeks: office hours and quiet weekends."""
    import numpy as np

    hour = at * STEP_S / 3600.0 % 24
    peak, width = chance.uniform(10, 17), chance.uniform(3, 5)
    day = np.exp(-(((hour - peak + 12) % 24 - 12) ** 2) / (2 * width**2))
    weekend = 1.0 - chance.uniform(0.3, 0.7) * ((at * STEP_S // 86400) % 7 >= 5)
    return 100 * (0.15 + day * weekend) * _noise(chance, len(at), 0.05)


def _drift(chance: Generator, at: ndarray) -> ndarray:
    """Growth (or decline) over weeks, with a small daily wave."""
    import numpy as np

    growth = chance.uniform(-0.4, 1.2)
    wave = 1 + 0.15 * np.sin(2 * np.pi * at / 288 + chance.uniform(0, 6))
    return 50 * (1 + growth * at / len(at)) * wave * _noise(chance, len(at), 0.04)


def _flash(chance: Generator, at: ndarray) -> ndarray:
    """Flash crowds: a sudden multiple of the usual load that fades over an hour or two."""
    import numpy as np

    load = np.ones(len(at))
    for start in np.cumsum(chance.exponential(len(at) / 18, 40)).astype(int):
        if start < len(at):
            tail = np.arange(len(at) - start)
            load[start:] += chance.uniform(1, 6) * np.exp(-tail / chance.uniform(4, 20)) * np.minimum(1, (tail + 1) / 2)
    wave = 1 + 0.3 * np.sin(2 * np.pi * at / 288)
    return 40 * load * wave * _noise(chance, len(at), 0.08)


def _regime(chance: Generator, at: ndarray) -> ndarray:
    """A daily wave whose level, depth and phase change for good a few times."""
    import numpy as np

    borders = np.sort(chance.integers(0, len(at), 3))
    part = np.searchsorted(borders, at, side="right")
    level, depth, phase = (
        chance.uniform(30, 120, 4)[part],
        chance.uniform(0.1, 0.8, 4)[part],
        chance.uniform(0, 6, 4)[part],
    )
    return level * (1 + depth * np.sin(2 * np.pi * at / 288 + phase)) * _noise(chance, len(at), 0.05)


def _jobs(chance: Generator, at: ndarray) -> ndarray:
    """Scheduled jobs on top of a steady load: some every night, some every few hours, one at no fixed time."""
    import numpy as np

    load = np.full(len(at), 20.0)
    for every, count in ((288, 2), (72, 1), (36, 1)):
        for _ in range(count):
            long, first = int(chance.integers(3, 15)), int(chance.integers(0, every))
            load += ((at + first) % every < long) * chance.uniform(20, 60)
    for start in chance.integers(0, len(at), 12):
        load[start : start + int(chance.integers(3, 10))] += chance.uniform(10, 50)
    return load * _noise(chance, len(at), 0.04)


KINDS: dict[str, Callable[[Generator, ndarray], ndarray]] = {
    "pulses": _pulses,
    "weekly": _weekly,
    "drift": _drift,
    "flash": _flash,
    "regime": _regime,
    "jobs": _jobs,
}
