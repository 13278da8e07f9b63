"""Any signals in any order: a node with heartbeats is up, a silent one is gone, an old incarnation stays dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.config import LAN
from mesh.membership import failure_detector
from mesh.membership.failure_detector import PeerState
from mesh.membership.member import GONE, SUSPECT, UP
from mesh.messages import Heartbeat, NodeRecord

GRACE_S = LAN.disconnect_grace_s
GAPS = st.lists(st.floats(0.4, 0.55), min_size=1, max_size=30)


def heartbeat(seq: int, incarnation: str = "1", state: str = "up") -> Heartbeat:
    return Heartbeat(node="a", incarnation=incarnation, seq=seq, state=state)


def born(now: float = 0.0, incarnation: str = "1") -> PeerState:
    return failure_detector.recorded(None, NodeRecord(id="a", name="a", incarnation=incarnation), now)


@given(GAPS, st.floats(0, 1e6))
def test_a_node_with_heartbeats_is_up_and_without_them_suspect_then_gone(gaps: list[float], start: float) -> None:
    now, seen = start, born(start)
    for seq, gap_s in enumerate(gaps):
        now += gap_s
        seen = failure_detector.heard(seen, heartbeat(seq), GRACE_S, now)
        assert seen is not None
        assert failure_detector.verdict(seen, LAN, now + 0.55) == UP
    interval_s = LAN.heartbeat_interval_s
    assert failure_detector.verdict(seen, LAN, now + 3.1 * interval_s) == SUSPECT
    assert failure_detector.verdict(seen, LAN, now + 5.1 * interval_s) == GONE


OLD = st.one_of(
    st.tuples(st.just("heartbeat"), st.integers(0, 10**6), st.sampled_from(["up", "left", "gone", "draining"])),
    st.tuples(st.just("disconnect"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("connect"), st.integers(0, 9), st.just("")),
)


@given(st.lists(OLD, max_size=30))
def test_an_old_incarnation_neither_kills_nor_revives_a_newer_one(signals) -> None:
    seen = failure_detector.recorded(born(), NodeRecord(id="a", name="a", incarnation="2"), 1.0)
    before = seen
    for kind, number, state in signals:
        if kind == "heartbeat":
            assert failure_detector.heard(seen, heartbeat(number, "1", state), GRACE_S, 2.0) is None
        elif kind == "disconnect":
            seen = failure_detector.disconnected(seen, "1", ("S", number), 2.0)
        else:
            seen = failure_detector.connected(seen, "1", ("S", number))
    assert seen == before


@given(st.floats(0, 1.0), st.booleans())
def test_a_disconnected_node_is_suspect_until_the_grace_is_over(waited_s: float, comes_back: bool) -> None:
    seen = failure_detector.connected(born(), "1", ("S", 1))
    seen = failure_detector.disconnected(seen, "1", ("S", 1), 0.1)
    if comes_back:
        seen = failure_detector.connected(seen, "1", ("S", 2))
    state = failure_detector.verdict(seen, LAN, 0.1 + waited_s)
    if comes_back:
        assert state == UP
    elif 0.1 + waited_s - 0.1 < GRACE_S:
        assert state == SUSPECT
    else:
        assert state == GONE


@given(st.permutations(["disconnect 1", "connect 2"]))
def test_a_reconnect_keeps_a_node_up_in_any_order_of_its_signals(order: list[str]) -> None:
    seen = failure_detector.connected(born(), "1", ("S", 1))
    for signal in order:
        if signal == "disconnect 1":
            seen = failure_detector.disconnected(seen, "1", ("S", 1), 0.1)
        else:
            seen = failure_detector.connected(seen, "1", ("S", 2))
    assert failure_detector.verdict(seen, LAN, 1.0) == UP


@given(st.floats(0, 100), st.floats(0, 2.4))
def test_an_observer_that_stalled_extends_all_timeouts_by_the_stall(stall_s: float, silent_s) -> None:
    seen = failure_detector.heard(born(), heartbeat(1), GRACE_S, 0.0)
    assert seen is not None
    now = silent_s + stall_s
    late = failure_detector.extended(seen, stall_s)
    assert failure_detector.verdict(late, LAN, now - 1e-6) == failure_detector.verdict(seen, LAN, silent_s - 1e-6)


@given(st.integers(3, 50), st.floats(2.5, 4.9))
def test_when_most_nodes_fall_silent_at_once_none_is_gone_yet(count: int, silent_s: float) -> None:
    seen = {f"n{number}": PeerState(f"n{number}", "1", silent_from=0.0) for number in range(count)}
    seen["me"] = PeerState("me", "1", silent_from=silent_s, heard_at=silent_s)
    states = failure_detector.verdicts(seen, "me", LAN, silent_s)
    assert {states[node] for node in seen if node != "me"} == {SUSPECT}
    for node in seen:
        if node != "me":
            seen[node] = PeerState(node, "1", silent_from=0.0)
    seen["me"] = PeerState("me", "1", silent_from=5.1, heard_at=5.1)
    late = failure_detector.verdicts(seen, "me", LAN, 5.1)
    assert {late[node] for node in seen if node != "me"} == {GONE}


@given(st.integers(1, 20), st.floats(2.5, 1000))
def test_a_node_that_does_not_hear_itself_holds_no_silent_node_for_gone(count: int, silent_s: float) -> None:
    seen = {f"n{number}": PeerState(f"n{number}", "1", silent_from=0.0) for number in range(count)}
    seen["me"] = PeerState("me", "1", silent_from=0.0, heard_at=0.0)
    states = failure_detector.verdicts(seen, "me", LAN, silent_s)
    assert GONE not in {states[node] for node in seen if node != "me"}
