"""Who receives heartbeats: the leader all, other nodes its digest, or all again while the digest is missing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.config import LAN
from mesh.membership.heartbeat_relay import (
    MISSED_DIGESTS,
    STANDBY_NODES,
    batches,
    digest_every_s,
    needs_all_heartbeats,
    standby_set,
)
from mesh.membership.member import GONE, UP

STATES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from([UP, "suspect", GONE, "left"]))


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_only_the_leader_and_nodes_without_a_digest_for_long_receive_all_heartbeats(digest_at, silent_s) -> None:
    limit_s = MISSED_DIGESTS * digest_every_s(LAN)
    assert needs_all_heartbeats(True, digest_at, digest_at + silent_s, LAN)
    if abs(silent_s - limit_s) > 1e-6:
        assert needs_all_heartbeats(False, digest_at, digest_at + silent_s, LAN) == (silent_s > limit_s)
    assert needs_all_heartbeats(False, float("-inf"), silent_s, LAN)


def test_a_node_receives_all_heartbeats_before_it_holds_a_silent_leader_for_gone() -> None:
    for config in (LAN, replace(LAN, heartbeat_interval_s=1.0, gone_after_missed=8)):
        assert MISSED_DIGESTS * digest_every_s(config) < config.heartbeat_interval_s * config.gone_after_missed


@given(st.lists(st.binary(max_size=4), max_size=50), st.integers(1, 20))
def test_the_batches_of_a_digest_hold_all_of_it(heartbeats, size) -> None:
    found = list(batches(heartbeats, size))
    assert found, "an empty digest still says that the leader lives"
    assert [heartbeat for batch in found for heartbeat in batch] == heartbeats
    assert all(len(piece) <= size for piece in found)


@given(STATES, st.text("abcdef", max_size=3))
def test_standby_nodes_are_up_the_same_on_every_node_and_never_the_leader(states, leader) -> None:
    found = standby_set(states, leader)
    able = {node for node, state in states.items() if state == UP} - {leader}
    assert found <= able and len(found) == min(STANDBY_NODES, len(able))
    assert found == standby_set(dict(reversed(list(states.items()))), leader)
