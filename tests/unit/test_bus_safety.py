"""What the bus reports to people: how durable stored work is, and what a rescue repairs."""

from __future__ import annotations

from mesh.bus.replies import stream_info
from mesh.cluster.durability import safety
from mesh.cluster.quorum_recovery import Damage, damage, explain
from mesh.cluster.raft_meta import Group, leaders_view, no_leader_reason, peer_id, read_groups, read_stream


def test_safety_in_words() -> None:
    assert safety([], ["a"]).startswith("no bus server answers (a away): nothing can be stored")
    assert safety(["a"]) == "1 copy, on a: losing this machine loses queued work"
    assert safety(["a", "b", "c"]) == "3 copies, on a, b, c: any one may fail"
    assert safety(["a", "b"], ["c"], "nobody else").startswith("2 of 3 copies are there, on a, b; c is away")
    assert "nobody else" in safety(["a", "b"], ["c"], "nobody else")
    assert "nothing can be stored" in safety(["a"], ["b", "c"]) and "rescue" in safety(["a"], ["b", "c"])
    assert safety(["a", "b"]).startswith("2 copies")
    making = safety(["a", "b", "c"], (), "WORK: copies are being made")
    assert making.startswith("3 bus servers") and "WORK" in making and "any one may fail" not in making


def jsz(server: str, leader: str, size: int, *peers: dict[str, object]) -> dict[str, object]:
    meta = {"leader": leader, "cluster_size": size, "replicas": list(peers)}
    return {"server": {"name": server}, "data": {"meta_cluster": meta}}


def test_a_newly_elected_leader_knows_the_others_by_id() -> None:
    """The documents are recorded from nats-server 2.15.1."""
    unknown = {"name": "Server name unknown at this time (peerID: 0ZkM0vRC)", "peer": "0ZkM0vRC", "offline": True}
    answers = [jsz("a", "a", 3, unknown, {"name": "c", "peer": "x", "current": True, "active": 10**6}), {"server": {}}]
    assert peer_id("b") == "0ZkM0vRC"
    assert leaders_view(read_groups(answers, ["a", "b", "c"])) == Group("a", 3, {"a": True, "b": False, "c": True})
    assert "0ZkM0vRC" in read_groups(answers)["a"].members
    half = [jsz("a", "a", 3, {"name": "c", "peer": "x", "current": True})]
    assert leaders_view(read_groups(half)) is None, "a leader that does not know all members is not believed"


def test_a_leader_with_a_group_size_that_is_too_small_is_a_leader() -> None:
    """The state after a power cut with one server late, when witnesses were routes."""
    others = [{"name": name, "peer": name, "current": True, "active": 10**6} for name in ("b", "c")]
    answers = [jsz("a", "a", 2, *others), jsz("b", "a", 2)]
    assert leaders_view(read_groups(answers)) == Group("a", 2, {"a": True, "b": True, "c": True})


def test_no_leader_is_reported_only_when_no_server_names_one() -> None:
    peer = {"name": "c~1", "peer": "x", "current": True}
    assert no_leader_reason(read_groups([jsz("a", "a", 3, peer)])) == (
        "a leads the bus servers and knows 2 of 3 members so far"
    )
    silent = "c leads the bus servers and did not answer"
    assert no_leader_reason(read_groups([jsz("a", "c~1", 3), jsz("b", "", 3)])) == silent
    assert no_leader_reason(read_groups([jsz("a", "", 3)])) == "the bus servers have no leader"
    assert no_leader_reason({}) == "no bus server answered"


def test_a_member_that_was_not_heard_for_long_is_not_current() -> None:
    silent = {"name": "b", "peer": "y", "current": True, "active": 4_000_000_000}
    assert read_groups([jsz("a", "a", 2, silent)])["a"].members == {"a": True, "b": False}
    info = {"config": {"name": "WORK", "num_replicas": 3}, "cluster": {"leader": "a", "replicas": [silent]}}
    stream = read_stream(stream_info(info))
    assert (stream.replicas, stream.leader, stream.current, stream.members) == (3, "a", {"a"}, {"a", "b"})


def test_only_a_lost_majority_needs_a_rescue() -> None:
    alone = damage(read_groups([jsz("a", "", 3)]))
    assert alone == Damage("", ("a",), 3) and alone.needs_rescue
    assert any("--yes" in sentence for sentence in explain(alone))
    electing = damage(read_groups([jsz("a", "", 3), jsz("b", "", 3)]))
    assert not electing.needs_rescue and "majority" in explain(electing)[0]
    served = damage(read_groups([jsz("a", "a", 3)]))
    assert not served.needs_rescue and "nothing to rescue" in explain(served)[0]
    known = [{"name": name, "peer": name, "offline": True} for name in ("b", "c", "d", "e")]
    few = damage(read_groups([jsz("a", "", 3, *known), jsz("b", "", 3)]))
    assert few.size == 5 and few.needs_rescue, "two of five are no majority, whatever the group size"
    assert not Damage("", (), 0).needs_rescue and explain(Damage("", (), 0))
