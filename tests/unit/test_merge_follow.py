"""Who leaves a mesh that goes into another one, and when; and what is heard of other meshes."""

from __future__ import annotations

import pytest

from mesh.coordination import MergeOrder
from mesh.discovery.announcement import CANDIDATE, MEMBER, Announcement
from mesh.discovery.identity import MeshIdentity, open_data_dir
from mesh.membership.member import GONE, UP, Member
from mesh.merge.carried import lane_of, ttl_of
from mesh.merge.detector import doubles, holds_work, strangers, twins
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
def test_who_is_needed_until_the_end_stays_until_both_meshes_say_so(phase, moved, me, hosts, goes) -> None:
    assert may_leave(MergeOrder(into="mb", urls=(), phase=phase, mover="nmover"), me, hosts, moved) is goes


def test_only_members_of_other_meshes_of_this_name_are_strangers() -> None:
    def said(mesh: str, role: str = MEMBER, name: str = "queztl", url: str = "nats://a:1") -> Announcement:
        return Announcement(name, mesh, "", "n1", (url,) if url else (), role)

    heard = [said("mb"), said("mb", url="nats://b:1"), said("ma"), said("mc", CANDIDATE), said("md", name="lab")]
    heard.append(said("me", url=""))
    assert strangers(heard, MeshSummary("ma", "queztl")) == {"mb": ("nats://a:1", "nats://b:1")}


def test_after_it_a_node_belongs_to_the_other_mesh_and_hosts_nothing(tmp_path) -> None:
    data = open_data_dir(tmp_path)
    data.remember_mesh(MeshIdentity("ma", "queztl", 1.0, "n1"), ("nats://old:1",))
    data.bus_folder.mkdir()
    (data.bus_folder / "founded.json").write_text("{}")
    (data.bus_folder / "store").mkdir()
    adopt(data, MergeOrder(into="mb", urls=("nats://new:1",)), "queztl")
    assert (data.mesh.id, data.bus_urls) == ("mb", ("nats://new:1",))
    assert not (data.bus_folder / "founded.json").exists() and (data.bus_folder / "store.removed").exists()
    data.close()


def test_what_a_message_says_of_itself() -> None:
    assert lane_of("work.echo.any.normal.c1-1") == ("echo", "any", "normal") and lane_of("work.echo") is None
    assert (ttl_of({"Nats-TTL": "600s"}), ttl_of({}), ttl_of({"Nats-TTL": "never"})) == (600.0, 0.0, 0.0)


def test_the_same_mesh_on_another_bus_is_a_twin_and_a_living_node_there_a_copy() -> None:
    ours = frozenset({"nats://a:1", "nats://a:2"})

    def said(node: str, *urls: str, mesh: str = "ma") -> Announcement:
        return Announcement("queztl", mesh, "", node, urls, MEMBER)

    here = [said("n1", "nats://a:2"), said("n2", "nats://a:1", "nats://z:1"), said("n3", "nats://b:1", mesh="mb")]
    assert twins(here, "ma", ours) == {} and doubles(here, "ma", ours, [member("n1")]) == frozenset()
    there = [*here, said("n4", "nats://b:1"), said("n1", "nats://b:1", "nats://b:2")]
    assert twins(there, "ma", ours) == {"ma'": ("nats://b:1", "nats://b:2")}
    assert doubles(there, "ma", ours, [member("n1"), member("n4", GONE)]) == {"n1"}


def test_work_is_held_by_who_lives_and_has_some() -> None:
    assert not holds_work([member("n1"), member("n2", GONE, running=3)])
    assert holds_work([member("n1"), member("n2", queued=1)])


def member(node: str, state: str = UP, **heartbeat: int) -> Member:
    record = NodeRecord(id=node, name=node, incarnation="1")
    return Member(record, state, Heartbeat(node=node, incarnation="1", seq=1, **heartbeat))
