"""The table of limits, and what few file descriptors leave of them. Also the figures that a heartbeat carries."""

from __future__ import annotations

import os
from dataclasses import replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import limits
from mesh.errors import CannotStart
from mesh.limits import Limits
from node.config import build
from node.probes import usage
from node.probes.usage import MachineUsage

LEVELS = [name for name, row in limits.TABLE.items() if row.is_level]


@given(st.sampled_from(LEVELS), st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_level_raises_its_alarm_from_four_fifths_on_and_says_what_follows(name: str, level: int, limit: int) -> None:
    found = limits.alarms({name: level}, replace(Limits(), **{name: limit}))
    assert set(found) == ({name} if 5 * level >= 4 * limit else set())
    assert not found or (found[name].startswith(f"{level} of {limit} ") and f"--limit {name}=N" in found[name])


@given(st.integers(0, 1 << 20))
def test_few_descriptors_leave_few_connections_and_always_some(descriptors: int) -> None:
    fitted = limits.fit_to_descriptors(Limits(), descriptors)
    for count in (fitted.connections, fitted.bus_connections):
        assert limits.FEWEST_CONNECTIONS <= count <= max(limits.FEWEST_CONNECTIONS, descriptors // 2)
    assert replace(fitted, connections=1000, bus_connections=10_000) == Limits()


def test_limits_are_set_by_flag_or_variable_and_mistakes_are_named() -> None:
    config = build({"limit": ["lanes=7", "nodes=9"]}, {})
    assert (config.mesh_config.limits.lanes, config.mesh_config.limits.nodes) == (7, 9)
    assert build({}, {"QUEZTL_LIMIT": "headers=50,lanes=8"}).mesh_config.limits == replace(
        Limits(), headers=50, lanes=8
    )
    for wrong in ("lane=7", "lanes=0", "lanes", "lanes=x"):
        with pytest.raises(CannotStart, match="--limit"):
            build({"limit": [wrong]}, {})


def test_the_figures_of_a_heartbeat_are_those_of_the_system() -> None:
    machine = MachineUsage()
    memory = psutil.virtual_memory()
    assert machine.memory_used_bytes() == pytest.approx(memory.total - memory.available, rel=0.2)
    assert 0.0 <= machine.cpu_percent() <= 100.0
    machine.close()


def test_figures_that_can_not_be_read_are_the_last_ones() -> None:
    machine = MachineUsage()
    before = machine.memory_used_bytes(), machine.cpu_percent()
    for name in ("_stat", "_meminfo"):
        os.close(getattr(machine, name))
        setattr(machine, name, 1 << 20)  # no descriptor of this process
    assert (machine.memory_used_bytes(), machine.cpu_percent()) == before


def test_cpu_time_is_read_from_the_first_line_without_that_of_guests() -> None:
    busy, total = usage.cpu_times(b"cpu  10 1 5 80 4 0 0 0 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert (busy, total) == (16.0, 100.0)
