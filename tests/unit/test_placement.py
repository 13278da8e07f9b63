"""Ranks of nodes, and the reasons that are given when no node can run a task."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from mesh.kinds.base import Resources
from mesh.membership.member import Member
from mesh.messages import Accelerator, Capabilities, Heartbeat, KindInfo, NodeRecord
from mesh.scheduling import placement
from mesh.scheduling.placement import LAST, Memory

ONE, ALL, GPU = {"k": Resources()}, {"k": Resources(cores="all")}, {"k": Resources(gpu=1)}


def member(node: str, mean_s: float = 0.0, tasks: int = 0, state: str = "up", running: int = 0, **more) -> Member:
    kinds = more.pop("kinds", (KindInfo("k", True),))
    cores, accelerators = more.pop("cores", 4), more.pop("accelerators", ())
    load = {name: more.pop(name) for name in ("cores_used", "queued") if name in more}
    have = Capabilities(cores=cores, kinds=kinds, accelerators=accelerators, memory_bytes=8 << 30)
    record = NodeRecord(id=node, name=node, incarnation="1", slots=cores, capabilities=have, **more)
    rates = {"k": (mean_s, tasks)} if tasks else {}
    heartbeat = Heartbeat(node=node, incarnation="1", seq=1, rates=rates, running=running, **load)
    return Member(record, state, heartbeat)


def ranks(members, resources=ONE, memory=None, now: float = 0.0):
    plan, after = placement.ranks(members, resources, memory or Memory(), now)
    return plan["k"], after


def test_fast_nodes_rank_first_and_similar_ones_equal() -> None:
    found, _ = ranks([member("fast", 1.0, 9), member("same", 1.1, 9), member("slow", 5.0, 9)])
    assert found == {"fast": 0, "same": 0, "slow": 4}


def test_a_task_can_start_where_its_slots_are_free_now() -> None:
    def can_start(declared, *members, **requires) -> bool:
        return placement.can_start(requires, "k", declared, members)

    idle, half, small = member("idle"), member("half", cores_used=2), member("small", cores=2)
    assert can_start("all", half, idle) and not can_start("all", half) and can_start("all", small)
    assert can_start(1, half, cores=2) and not can_start(1, half, cores=3) and not can_start(1, small, cores=3)
    assert not can_start(1, member("full", cores_used=3, queued=1)) and can_start(1, member("almost", cores_used=3))
    assert not can_start(1, member("ill", state="suspect"), member("leaving", state="draining"))
    assert not can_start(1, member("unable", kinds=())) and not can_start(1, idle, region="eu")
    assert not can_start(1, replace(idle, heartbeat=None)), "nothing is known of its slots"


def test_a_measurement_counts_only_with_enough_samples_on_both_sides() -> None:
    assert ranks([member("a", 1.0, 9), member("b", 9.0, 4)])[0] == {"a": 0, "b": 0}
    assert ranks([member("a", 1.0, 5), member("b", 9.0, 5)])[0] == {"a": 0, "b": 4}


def test_without_measurements_capabilities_decide() -> None:
    assert ranks([member("big", cores=16), member("small", cores=4)], ALL)[0] == {"big": 0, "small": 4}
    card = (Accelerator("cuda", "H200", 140 << 30),)
    assert ranks([member("gpu", accelerators=card), member("none")], GPU)[0] == {"gpu": 0, "none": 4}


def test_rented_nodes_rank_after_owned_ones_and_suspect_ones_last() -> None:
    found, _ = ranks(
        [
            member("owned", 4.0, 9),
            member("spot", 1.0, 9, labels={"market": "spot"}),
            member("ill", 1.0, 9, state="suspect"),
            member("leaving", 1.0, 9, state="draining"),
            member("dead", 1.0, 9, state="gone"),
        ]
    )
    assert found["owned"] < found["spot"] < LAST
    assert found["ill"] == found["leaving"] == LAST
    assert "dead" not in found


def test_a_node_without_the_kind_has_no_rank() -> None:
    found, _ = ranks([member("a"), member("b", kinds=(KindInfo("k", False, "no cv2"),))])
    assert found == {"a": 0}
    assert placement.ranks([member("b", kinds=())], ONE, Memory(), 0.0)[0] == {}


def test_a_rank_changes_only_when_its_border_was_clearly_passed() -> None:
    a = member("a", 1.0, 9)
    first, memory = ranks([a, member("b", 1.2, 9)])
    near, memory = ranks([a, member("b", 1.3, 10)], memory=memory)
    far, memory = ranks([a, member("b", 1.5, 11)], memory=memory)
    back, memory = ranks([a, member("b", 1.2, 12)], memory=memory)
    assert [plan["b"] for plan in (first, near, far, back)] == [0, 0, 1, 1]


def test_an_old_measurement_is_given_another_chance() -> None:
    members = [member("a", 1.0, 9), member("b", 9.0, 9), member("c", 1.0, 9)]
    found, memory = ranks(members)
    assert found["b"] == 4
    moved = [member("a", 1.0, 99), member("b", 9.0, 9), member("c", 1.0, 99)]
    assert ranks(moved, memory=memory, now=placement.STALE_S + 1)[0]["b"] == 0


def test_refusals_list_every_reason_and_whether_waiting_helps() -> None:
    lacks = (KindInfo("k", False, "no cv2"),)
    nodes = [
        member("a", kinds=lacks),
        member("b", kinds=lacks),
        member("c", running=4),
        member("d", running=4),
        member("e", running=5),
    ]
    assert placement.unmet({}, "k", nodes) == (("3 of 5 nodes: busy", "2 of 5 nodes: no cv2"), True)
    reasons, helps = placement.unmet({"memory_mb": 999_999}, "k", nodes)
    assert not helps and any("of 999999 MB" in reason for reason in reasons)
    assert placement.unmet({}, "k", [*nodes, member("f")]) == ((), True)
    assert placement.unmet({}, "k", [member("g", state="gone")]) == (("1 of 1 node: gone",), False)
    assert placement.unmet({}, "k", [member("g", state="draining")]) == (("1 of 1 node: leaving",), False)
    assert placement.unmet({}, "k", []) == (("there is no node in the mesh",), False)


def probed(node: str, seconds: float, **more) -> Member:
    unprobed = member(node, **more)
    have = msgspec.structs.replace(unprobed.record.capabilities, speeds={"k": seconds})
    return replace(unprobed, record=msgspec.structs.replace(unprobed.record, capabilities=have))


def test_probes_decide_until_tasks_were_timed() -> None:
    assert ranks([probed("a", 0.1), probed("b", 0.2), probed("c", 1.0)])[0] == {"a": 0, "b": 2, "c": 4}
    # Measured task times count more than probes.
    timed = [probed("a", 0.1, mean_s=4.0, tasks=9), probed("b", 0.2, mean_s=1.0, tasks=9)]
    assert ranks(timed)[0] == {"a": 4, "b": 0}


def test_a_probe_of_only_one_node_is_ignored() -> None:
    assert ranks([probed("a", 9.0), member("b")])[0] == {"a": 0, "b": 0}


def test_a_node_that_was_not_probed_is_estimated_from_those_that_were() -> None:
    nodes = [probed("a", 0.4, cores=4), probed("b", 0.1, cores=16), member("c", cores=8)]
    assert ranks(nodes, ALL)[0] == {"a": 4, "b": 0, "c": 2}
    # A node whose tasks were timed is comparable with one that was only probed.
    nodes = [probed("a", 0.1, mean_s=2.0, tasks=9), probed("b", 0.1, mean_s=2.0, tasks=9), probed("c", 0.5)]
    assert ranks(nodes)[0] == {"a": 0, "b": 0, "c": 4}
