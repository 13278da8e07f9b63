"""Rules of the failure detector that one case each shows."""

from __future__ import annotations

from mesh.config import LAN
from mesh.membership import failure_detector
from mesh.membership.failure_detector import PeerState
from mesh.messages import Heartbeat, NodeRecord


def record(state: str = "up", incarnation: str = "1", registered_by: str = "") -> NodeRecord:
    return NodeRecord(id="a", name="a", incarnation=incarnation, state=state, registered_by=registered_by)


def test_states_that_a_node_reports_of_itself() -> None:
    seen = failure_detector.recorded(None, record("draining"), 0.0)
    assert failure_detector.verdict(seen, LAN, 0.1) == "draining"
    left = failure_detector.recorded(seen, record("left"), 0.2)
    assert failure_detector.verdict(left, LAN, 99.0) == "left"
    late = failure_detector.heard(left, Heartbeat(node="a", incarnation="1", seq=9), 0.25, 0.3)
    assert late is not None and failure_detector.verdict(late, LAN, 0.3) == "left"


def test_a_node_that_only_registered_is_not_gone() -> None:
    seen = failure_detector.recorded(None, record(incarnation="", registered_by="b"), 0.0)
    assert failure_detector.verdict(seen, LAN, 1e6) == "registered"
    joined = failure_detector.recorded(seen, record(), 1.0)
    assert failure_detector.verdict(joined, LAN, 1.1) == "up"


def test_silence_is_measured_anew_after_the_bus_was_away() -> None:
    seen = failure_detector.disconnected(PeerState("a", "1", silent_from=0.0), "1", ("S", 1), 0.1)
    assert failure_detector.verdict(seen, LAN, 60.0) == "gone"
    assert failure_detector.verdict(failure_detector.grace_restarted(seen, 60.0), LAN, 60.1) == "up"


def test_a_disconnect_is_not_trusted_while_a_server_restarts() -> None:
    seen = failure_detector.connected(PeerState("a", "1"), "1", ("S", 1))
    seen = failure_detector.disconnected(seen, "1", ("S", 1), 0.1, trusted=False)
    assert seen.connections == frozenset() and failure_detector.verdict(seen, LAN, 1.0) == "up"


def test_a_death_notice_of_the_leader_is_believed_until_the_next_heartbeat() -> None:
    seen = failure_detector.recorded(None, record(), 0.0)
    gone = failure_detector.heard(seen, Heartbeat(node="a", incarnation="1", seq=0, state="gone"), 0.25, 0.1)
    assert gone is not None and failure_detector.verdict(gone, LAN, 0.1) == "gone"
    back = failure_detector.heard(gone, Heartbeat(node="a", incarnation="1", seq=1), 0.25, 0.2)
    assert back is not None and failure_detector.verdict(back, LAN, 0.2) == "up"


def test_which_records_are_removed() -> None:
    states = {"a": "up", "b": "left", "c": "gone"}
    assert failure_detector.overdue(states, {}, 100.0) == (["b"], {"c": 100.0})
    assert failure_detector.overdue(states, {"c": 100.0}, 3701.0) == (["b", "c"], {"c": 100.0})
    assert failure_detector.overdue({"c": "up"}, {"c": 100.0}, 9999.0) == ([], {})


def up(seq: int, **more: float) -> Heartbeat:
    return Heartbeat(node="a", incarnation="1", seq=seq, **more)


def test_a_delayed_heartbeat_is_no_sign_of_life() -> None:
    seen = failure_detector.heard(failure_detector.recorded(None, record(), 0.0), up(5), 0.25, 0.0)
    for seq in (5, 4):
        assert failure_detector.heard(seen, up(seq), 0.25, 2.4) == seen
    assert failure_detector.verdict(seen, LAN, 2.5) == "gone"


def test_a_heartbeat_disproves_a_disconnect_unless_it_may_have_been_sent_before() -> None:
    cut = failure_detector.disconnected(PeerState("a", "1", seq=5), "1", ("S", 1), 10.0)
    for at, state in ((10.1, "gone"), (10.2, "up")):
        seen = failure_detector.heard(cut, up(6), 0.25, at)
        assert seen is not None and failure_detector.verdict(seen, LAN, 10.3) == state


def test_the_grace_counts_from_the_first_disconnect() -> None:
    seen = failure_detector.disconnected(PeerState("a", "1"), "1", ("S", 1), 0.1)
    assert failure_detector.disconnected(seen, "1", ("S", 2), 0.3).disconnected_at == 0.1


def test_after_a_restart_of_the_bus_its_old_connections_hide_no_disconnect() -> None:
    seen = failure_detector.grace_restarted(failure_detector.connected(PeerState("a", "1"), "1", ("S", 1)), 1.0)
    seen = failure_detector.connected(seen, "1", ("T", 1))
    seen = failure_detector.disconnected(seen, "1", ("T", 1), 1.1)
    assert failure_detector.verdict(seen, LAN, 1.4) == "gone"


def test_a_node_with_a_longer_heartbeat_interval_gets_a_longer_timeout() -> None:
    seen = failure_detector.heard(failure_detector.recorded(None, record(), 0.0), up(1, interval_s=2.0), 0.25, 0.0)
    assert failure_detector.verdict(seen, LAN, 5.9) == "up" and failure_detector.verdict(seen, LAN, 10.0) == "gone"


def test_closed_connections_are_believed_of_a_majority_and_without_any_heartbeat() -> None:
    seen = {f"n{number}": PeerState(f"n{number}", "1", disconnected_at=0.0) for number in range(5)}
    seen["me"] = PeerState("me", "1", heard_at=0.0)
    states = failure_detector.verdicts(seen, "me", LAN, 60.0)
    assert {states[node] for node in seen if node != "me"} == {"gone"}


def test_no_forged_heartbeat_or_record_makes_a_living_node_gone_for_good() -> None:
    """One with a number that the node reaches in years, one that says it has left."""
    seen = failure_detector.heard(failure_detector.recorded(None, record(), 100.0), up(7), 0.25, 100.0)
    for forged in (up(1 << 60), Heartbeat(node="a", incarnation="1", seq=8, state="left")):
        fooled = failure_detector.heard(seen, forged, 0.25, 100.1)
        for number in range(9, 19):  # its own heartbeats go on
            fooled = failure_detector.heard(fooled, up(number), 0.25, 100.1 + (number - 8) / 2)
        assert failure_detector.verdict(fooled, LAN, 105.2) == "up"
    fooled = failure_detector.recorded(seen, record("left"), 100.1)
    assert failure_detector.verdict(fooled, LAN, 100.2) == "left"
    assert failure_detector.verdict(failure_detector.recorded(fooled, record(), 101.0), LAN, 101.0) == "left"
    assert failure_detector.verdict(failure_detector.heard(fooled, up(8), 0.25, 104.0), LAN, 104.1) == "up"
