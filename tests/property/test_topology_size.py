"""A group size that is too small, under Hypothesis: the simulated bus of `test_topology.py`."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.steps import Promote, Remove, Stop, Wait
from mesh.cluster.topology import View, plan
from mesh.subjects import host_of
from tests.property.test_topology import RULES, created_mesh


@given(st.sampled_from([3, 5]), st.integers(0, 2), st.data())
def test_a_small_group_size_is_repaired_without_loss_of_the_majority(
    servers: int, spare: int, data: st.DataObject
) -> None:
    """`World.obey` checks after each step that a majority of the members is alive."""
    world = created_mesh(servers + spare)
    world.rules = replace(RULES, servers=servers)
    assert world.run() == Wait() and len(world.group) == servers
    world.took.clear()
    world.size = data.draw(st.integers(2, servers - 1))
    dead = data.draw(st.integers(0, servers - world.size // 2 - 1))  # as many as the wrong quorum survives
    followers = [server for server in sorted(world.group) if server != world.leader]
    world.gone = {host_of(server) for server in followers[:dead]}
    harmless, members = world.size // 2 == servers // 2, set(world.group)
    last = world.run()
    if (servers - dead) * 2 <= servers:
        assert not world.took and f"only {servers - dead} of them are connected" in last.reason
    elif spare or (not dead and not harmless):
        assert world.size == 0
        assert dead or len(world.group) == servers
    else:
        assert not world.took and set(world.group) == members
    if not dead and not spare and harmless:
        assert last.reason.startswith(
            f"{host_of(world.leader)} leads the bus servers with a group size of {world.size}"
        )


def test_a_repair_with_a_free_node_moves_no_copy() -> None:
    world = created_mesh(4)
    world.run()
    world.took.clear()
    before, world.size = set(world.group), 2
    assert world.run() == Wait()
    assert [type(step) for step in world.took] == [Promote, Remove, Stop] and set(world.group) == before


def test_the_reason_for_no_leader_is_reported() -> None:
    reason = "n2 leads the bus servers and did not answer"
    assert plan(View(leader="", no_leader_reason=reason), RULES) == Wait(reason)
