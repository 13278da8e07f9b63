"""The conditions of a measurement: load, clock and temperature of the machine, and whether they spoil the figures."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from bench.harness.environment import machine_cpu_s
from bench.harness.measure import disturbance
from bench.suite.model import Conditions

#: How long the load before a run is measured, seconds.
LOOK_S = 1.0
#: A machine is busy when others use more than this share of its cores before the run,
BUSY_BEFORE = 0.10
#: or more than this share of its CPU during the run, or when its host steals more than STOLEN.
BUSY_DURING = 0.08
STOLEN = 0.05
#: The machine throttles when its clock falls below this share of what it was.
THROTTLED = 0.85


@dataclass(frozen=True)
class Look:
    """The machine at one moment."""

    used_s: tuple[float, float, float]
    temperature_c: float | None
    mhz: float | None


def look() -> Look:
    """The machine now."""
    return Look(machine_cpu_s(), temperature_c(), mhz())


def load_before(look_s: float = LOOK_S) -> float:
    """Cores in use now, measured over `look_s` seconds while this process sleeps."""
    before = machine_cpu_s()
    time.sleep(look_s)
    after = machine_cpu_s()
    total_s = after[2] - before[2]
    cores = psutil.cpu_count() or 1
    return round((after[0] - before[0]) / total_s * cores, 2) if total_s > 0 else 0.0


def temperature_c() -> float | None:
    """The hottest processor sensor; None where the system has none."""
    sensors = getattr(psutil, "sensors_temperatures", dict)()
    values = [each.current for name, many in sensors.items() if name in _PROCESSOR for each in many if each.current]
    return round(max(values), 1) if values else None


_PROCESSOR = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal"})


def mhz() -> float | None:
    """The current clock of the processor; None where the system does not report it, or reports 0."""
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
    why: list[str] = []
    if load > BUSY_BEFORE * cores:
        why.append(f"{load:.1f} of {cores} cores were in use before it")
    if shares["others"] > BUSY_DURING:
        why.append(f"other processes used {shares['others']:.0%} of the machine")
    if shares["stolen"] > STOLEN:
        why.append(f"the host took {shares['stolen']:.0%}")
    return Conditions(
        load_before=load,
        others=shares["others"],
        stolen=shares["stolen"],
        temperature_c=after.temperature_c,
        mhz=after.mhz,
        throttled=throttled,
        busy="; ".join(why),
    )
