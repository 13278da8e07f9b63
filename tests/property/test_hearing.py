"""Who hears whom: the master everybody, the others its roll, and nobody goes unheard when it stays away."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.config import LAN
from mesh.membership.heartbeat_relay import PATIENCE, STANDBY_NODES, digest_every_s, listens_itself, pieces, standby_set
from mesh.membership.member import GONE, UP

STATES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from([UP, "suspect", GONE, "left"]))


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_only_who_leads_or_has_heard_no_roll_for_long_hears_all(rolled_at, silent_s) -> None:
    limit_s = PATIENCE * digest_every_s(LAN)
    assert listens_itself(True, rolled_at, rolled_at + silent_s, LAN)
    if abs(silent_s - limit_s) > 1e-6:
        assert listens_itself(False, rolled_at, rolled_at + silent_s, LAN) == (silent_s > limit_s)
    assert listens_itself(False, float("-inf"), silent_s, LAN)


def test_a_node_listens_itself_before_it_holds_a_silent_master_for_gone() -> None:
    for config in (LAN, replace(LAN, heartbeat_interval_s=1.0, gone_after_missed=8)):
        assert PATIENCE * digest_every_s(config) < config.heartbeat_interval_s * config.gone_after_missed


@given(st.lists(st.binary(max_size=4), max_size=50), st.integers(1, 20))
def test_the_pieces_of_a_roll_are_all_of_it(heartbeats, size) -> None:
    found = list(pieces(heartbeats, size))
    assert found, "an empty roll still says that the master lives"
    assert [heartbeat for piece in found for heartbeat in piece] == heartbeats
    assert all(len(piece) <= size for piece in found)


@given(STATES, st.text("abcdef", max_size=3))
def test_heirs_are_up_the_same_for_everybody_and_never_the_master(states, leader) -> None:
    found = standby_set(states, leader)
    able = {node for node, state in states.items() if state == UP} - {leader}
    assert found <= able and len(found) == min(STANDBY_NODES, len(able))
    assert found == standby_set(dict(reversed(list(states.items()))), leader)
