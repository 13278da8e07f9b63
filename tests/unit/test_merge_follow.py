"""When a node leaves a mesh that merges into another one, and how announcements show other meshes."""

from __future__ import annotations

import pytest

from mesh.bus.reserved import lifetime_s
from mesh.coordination import MergeOrder
from mesh.discovery.announcement import CANDIDATE, MEMBER, Announcement
from mesh.discovery.identity import MeshIdentity, open_data_dir
from mesh.membership.member import GONE, UP, Member
from mesh.merge.carried import lane_of
from mesh.merge.detector import copied_nodes, holds_work, other_meshes, twins
from mesh.merge.policy import MeshSummary
from mesh.messages import Heartbeat, NodeRecord
from node.lifecycle.merge_follow import adopt, may_leave


@pytest.mark.parametrize(
    ("phase", "moved", "me", "hosts", "goes"),
    [
        ("drain", False, "n1", False, True),
        ("drain", False, "n1", True, False),
        ("drain", True, "n1", True, False),
        ("drain", False, "nmover", False, False),
        ("moved", True, "n1", True, True),
        ("moved", True, "nmover", True, True),
        ("moved", False, "n1", True, False),
        ("moved", False, "nmover", False, False),
    ],
)
def test_bus_hosts_and_the_mover_stay_until_both_meshes_are_done(phase, moved, me, hosts, goes) -> None:
    assert may_leave(MergeOrder(into="mb", urls=(), phase=phase, mover="nmover"), me, hosts, moved) is goes


def test_only_members_of_other_meshes_of_this_name_are_strangers() -> None:
    def announce(mesh: str, role: str = MEMBER, name: str = "queztl", url: str = "nats://a:1") -> Announcement:
        return Announcement(name, mesh, "", "n1", (url,) if url else (), role)

    announcements = [
        announce("mb"),
        announce("mb", url="nats://b:1"),
        announce("ma"),
        announce("mc", CANDIDATE),
        announce("md", name="lab"),
    ]
    announcements.append(announce("me", url=""))
    assert other_meshes(announcements, MeshSummary("ma", "queztl")) == {"mb": ("nats://a:1", "nats://b:1")}


def test_after_the_merge_a_node_belongs_to_the_other_mesh_and_hosts_no_bus(tmp_path) -> None:
    data = open_data_dir(tmp_path)
    data.remember_mesh(MeshIdentity("ma", "queztl", 1.0, "n1"), ("nats://old:1",))
    data.bus_folder.mkdir()
    (data.bus_folder / "founded.json").write_text("{}")
    (data.bus_folder / "store").mkdir()
    adopt(data, MergeOrder(into="mb", urls=("nats://new:1",)), "queztl")
    assert (data.mesh.id, data.bus_urls) == ("mb", ("nats://new:1",))
    assert not (data.bus_folder / "founded.json").exists() and (data.bus_folder / "store.removed").exists()
    data.close()


def test_the_lane_and_the_ttl_of_a_message() -> None:
    assert lane_of("work.echo.any.normal.c1-1") == ("echo", "any", "normal") and lane_of("work.echo") is None
    assert (lifetime_s({"Nats-TTL": "600s"}), lifetime_s({}), lifetime_s({"Nats-TTL": "never"})) == (600.0, 0.0, 0.0)


def test_the_same_mesh_on_another_bus_is_a_twin_and_a_node_alive_on_both_a_double() -> None:
    ours = frozenset({"nats://a:1", "nats://a:2"})

    def announce(node: str, *urls: str, mesh: str = "ma") -> Announcement:
        return Announcement("queztl", mesh, "", node, urls, MEMBER)

    on_our_bus = [
        announce("n1", "nats://a:2"),
        announce("n2", "nats://a:1", "nats://z:1"),
        announce("n3", "nats://b:1", mesh="mb"),
    ]
    assert twins(on_our_bus, "ma", ours) == {} and copied_nodes(on_our_bus, "ma", ours, [member("n1")]) == frozenset()
    on_two_buses = [*on_our_bus, announce("n4", "nats://b:1"), announce("n1", "nats://b:1", "nats://b:2")]
    assert twins(on_two_buses, "ma", ours) == {"ma'": ("nats://b:1", "nats://b:2")}
    assert copied_nodes(on_two_buses, "ma", ours, [member("n1"), member("n4", GONE)]) == {"n1"}


def test_a_mesh_holds_work_while_a_living_node_has_some() -> None:
    assert not holds_work([member("n1"), member("n2", GONE, running=3)])
    assert holds_work([member("n1"), member("n2", queued=1)])


def member(node: str, state: str = UP, **heartbeat: int) -> Member:
    record = NodeRecord(id=node, name=node, incarnation="1")
    return Member(record, state, Heartbeat(node=node, incarnation="1", seq=1, **heartbeat))
