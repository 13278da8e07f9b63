"""The table of limits, and what few file descriptors leave of them. Also the figures that a heartbeat carries."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import limits
from mesh.cluster import server_load
from mesh.errors import CannotStart
from mesh.kinds.table import KINDS
from mesh.lanes import lane_for
from mesh.leader import alarms
from mesh.limits import Limits
from mesh.membership.member import UP, Member
from mesh.messages import NodeRecord
from mesh.scheduling import placement
from mesh.subjects import URGENCIES
from node.config import build
from node.probes import usage
from node.probes.usage import MachineUsage

ROOT = Path(__file__).parents[2]
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


def test_all_lanes_that_there_may_be_are_fewer_than_the_bus_takes() -> None:
    """It refuses more than about 1,000, whichever they are, so those with requirements must not shut out the others."""
    most = Limits()
    open_lanes = len(KINDS) * len(URGENCIES) * (1 + most.regions)
    assert open_lanes + most.lanes + 2 < 900


def test_a_region_beyond_the_limit_has_no_lane_and_raises_the_alarm() -> None:
    members = [
        Member(NodeRecord(id=f"n{number}", name="n", incarnation="1", region=f"r{number}"), UP, None)
        for number in range(5)
    ]
    assert placement.regions(members, 3) == ("r0", "r1", "r2")
    nowhere = Member(NodeRecord(id="n9", name="n", incarnation="1"), UP, None)
    assert placement.regions([*members, nowhere], 3) == ("", "r0", "r1", "r2")
    assert lane_for("echo", {}, "normal", "r4", ("r0", "r1", "r2")) == ("echo", "any", "normal")
    assert alarms.levels((), [*members, nowhere])["regions"] == 5


def test_a_bus_server_near_its_limit_is_named_with_its_own_limit() -> None:
    def answer(name: str, connections: int, limit: int) -> dict[str, object]:
        return {"server": {"name": name}, "data": {"connections": connections, "max_connections": limit}}

    answers = [answer("n1~a", 79, 100), answer("n2~b", 80, 100), answer("n3", 9, 0), {}, {"server": {"name": "n4"}}]
    counted = server_load.connections_of(answers)
    assert counted == {"n1~a": (79, 100), "n2~b": (80, 100), "n3": (9, 0)}
    (sentence,) = server_load.alarms_of(counted, {"n2": "office-7"}).values()
    assert sentence.startswith("On office-7: 80 of 100 connections to a bus server; beyond the limit: the bus server")


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


def test_a_process_opens_as_many_files_as_its_hard_limit_allows_and_its_heartbeat_none() -> None:
    """/proc/stat was opened for each heartbeat, which ended a node without a descriptor."""
    script = (
        "import resource; from node.probes.descriptors import raise_limit; from node.probes.usage import MachineUsage\n"
        "limit, files = resource.setrlimit, resource.RLIMIT_NOFILE\n"
        "limit(files, (64, 512)); print(raise_limit(), *resource.getrlimit(files))\n"
        "machine = MachineUsage(); limit(files, (1, 512)); print(machine._cpu_times() is not None)\n"
        "machine._memory_used_bytes = 0; print(machine.memory_used_bytes() > 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["512", "512", "512", "True", "True"]


def test_cpu_time_is_read_from_the_first_line_without_that_of_guests() -> None:
    busy, total = usage.cpu_times(b"cpu  10 1 5 80 4 0 0 0 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert (busy, total) == (16.0, 100.0)
