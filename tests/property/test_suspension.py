"""A server whose disk hangs is suspended only where a majority can be seen to store without it; never all of them."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.server.suspension import (
    FORGET_S,
    MARGIN_S,
    REST_S,
    SUSPEND_AFTER_S,
    PeerState,
    reason_not_to_suspend,
    rest_s,
)

AGES_S = st.one_of(st.floats(0.0, 60.0), st.just(math.inf))
PEERS = st.lists(st.builds(PeerState, st.booleans(), st.integers(0, 7), AGES_S), max_size=6)


@given(st.floats(0.0, 60.0), PEERS)
def test_a_server_is_suspended_only_while_a_majority_stores_without_it(hangs_s: float, peers: list[PeerState]) -> None:
    storing = [peer for peer in peers if peer.serves and peer.wrote_ago_s < hangs_s - MARGIN_S]
    suspended = not reason_not_to_suspend(hangs_s, peers)
    if suspended:
        assert hangs_s >= SUSPEND_AFTER_S
        assert len(storing) * 2 > len(peers) + 1
        assert all(len(storing) * 2 > peer.group_size for peer in peers)
    elif hangs_s >= SUSPEND_AFTER_S:
        assert len(storing) * 2 <= max([len(peers) + 1, *(peer.group_size for peer in peers)])


@given(
    size=st.sampled_from([3, 5]),
    hung_at=st.lists(st.floats(0.0, 10.0), min_size=5, max_size=5),
    hanging=st.integers(1, 5),
    now=st.floats(10.0, 60.0),
    phases_s=st.lists(st.floats(0.0, 1.2), min_size=5, max_size=5),
)
def test_servers_never_take_themselves_away_from_a_majority(
    size: int, hung_at: list[float], hanging: int, now: float, phases_s: list[float]
) -> None:
    """Disks hang from some moment on and write once a second before it: those that are suspended leave a majority."""
    hanging = min(hanging, size)

    def wrote_ago_s(server: int) -> float:
        """The last write that finished began shortly before the disk hung, or just now."""
        return (now - hung_at[server] if server < hanging else 0.0) + phases_s[server]

    suspended = 0
    for server in range(hanging):
        others = [peer for peer in range(size) if peer != server]
        states = [PeerState(True, size, wrote_ago_s(peer)) for peer in others]
        suspended += not reason_not_to_suspend(now - hung_at[server], states)
    if hanging * 2 > size:
        # Some disks may have hung so much later that they were seen to work: never so few are left by one decision.
        at_once = [at for at in hung_at[:hanging] if max(hung_at[:hanging]) - at < MARGIN_S]
        assert len(at_once) < hanging or not suspended
    else:
        assert suspended == sum(now - at >= SUSPEND_AFTER_S for at in hung_at[:hanging])


def test_one_of_three_is_suspended_after_three_seconds() -> None:
    good = [PeerState(True, 3, 0.7), PeerState(True, 3, 1.1)]
    assert "2.9 s only" in reason_not_to_suspend(2.9, good)
    assert not reason_not_to_suspend(SUSPEND_AFTER_S, good)
    assert "1 other of 3" in reason_not_to_suspend(30.0, [good[0], PeerState(True, 3, math.inf)]), (
        "its node does not answer"
    )
    assert reason_not_to_suspend(30.0, [good[0], PeerState(False, 3, 0.5)]), "its JetStream is off"
    assert reason_not_to_suspend(30.0, [good[0], PeerState(True, 3, 30.5)]), "its disk hangs, too"
    assert reason_not_to_suspend(30.0, [good[0]]), "one of two is no majority"
    assert reason_not_to_suspend(30.0, []), "a lone server"


@given(st.lists(st.floats(0.0, 3600.0), max_size=8), st.floats(0.0, 3600.0))
def test_a_disk_that_hangs_again_and_again_must_work_longer_each_time(at: list[float], now: float) -> None:
    past = sorted(time for time in at if time <= now)
    found = rest_s(past, now)
    recent = [time for time in past if now - time < FORGET_S]
    assert found == (REST_S[min(len(recent), len(REST_S)) - 1] if recent else 0.0)
    assert rest_s([*past, now], now) >= found
