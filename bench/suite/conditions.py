"""What the machine is like while it is measured: what the system tells, and whether that spoils the figures."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from bench.environment import machine_cpu_s
from bench.measure import disturbance
from bench.suite.model import Conditions

#: How long the machine is looked at before a run, seconds.
LOOK_S = 1.0
#: Cores in use by others before the run that make a machine a busy one, as a share of all.
BUSY_BEFORE = 0.10
#: Share of the machine's CPU that others had during the run.
BUSY_DURING = 0.08
STOLEN = 0.05
#: A clock that fell to less than this share of what it was: the machine throttles.
THROTTLED = 0.85


@dataclass(frozen=True)
class Look:
    """The machine at one moment."""

    used_s: tuple[float, float, float]
    temperature_c: float | None
    mhz: float | None


def look() -> Look:
    """What the system tells now."""
    return Look(machine_cpu_s(), temperature_c(), mhz())


def load_before(look_s: float = LOOK_S) -> float:
    """Cores in use right now by everything there is, this process asleep."""
    before = machine_cpu_s()
    time.sleep(look_s)
    after = machine_cpu_s()
    every_s = after[2] - before[2]
    cores = psutil.cpu_count() or 1
    return round((after[0] - before[0]) / every_s * cores, 2) if every_s > 0 else 0.0


def temperature_c() -> float | None:
    """The hottest processor sensor; None where the system tells none."""
    sensors = getattr(psutil, "sensors_temperatures", dict)()
    values = [one.current for name, many in sensors.items() if name in _PROCESSOR for one in many if one.current]
    return round(max(values), 1) if values else None


_PROCESSOR = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal"})


def mhz() -> float | None:
    """The processor's present clock; None where the system does not tell, or tells a constant 0."""
    try:
        now = psutil.cpu_freq()
    except (OSError, RuntimeError):
        return None
    return round(now.current, 0) if now and now.current else None


def judge(load: float, before: Look, after: Look, ours_s: float, cores: int) -> Conditions:
    """The conditions of a run. Pure.

    `load`: cores in use before it; `ours_s`: CPU seconds of what was measured, this process included.
    """
    shares = disturbance(before.used_s, after.used_s, ours_s)
    throttled = None
    if before.mhz and after.mhz and before.mhz > 100:
        throttled = after.mhz < THROTTLED * before.mhz
    why = []
    if load > BUSY_BEFORE * cores:
        why.append(f"{load:.1f} of {cores} cores were in use before it")
    if shares["others"] > BUSY_DURING:
        why.append(f"other processes had {shares['others']:.0%} of the machine")
    if shares["stolen"] > STOLEN:
        why.append(f"the machine's host took {shares['stolen']:.0%}")
    return Conditions(
        load_before=load,
        others=shares["others"],
        stolen=shares["stolen"],
        temperature_c=after.temperature_c,
        mhz=after.mhz,
        throttled=throttled,
        busy="; ".join(why),
    )
