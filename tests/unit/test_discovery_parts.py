"""The pure parts of discovery: choice of interfaces, TXT records, and which announcement replaces another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.discovery.announcement import (
    MAX_ROUTES,
    MEMBER,
    ROLES,
    TTL_S,
    Announcement,
    Sighting,
    from_properties,
    from_txt,
    heard,
    still_valid,
    to_properties,
)
from mesh.discovery.interfaces import Interface, choose, is_virtual, read_interfaces

UP = frozenset({"up", "multicast", "running"})
LO = Interface("lo", ("127.0.0.1",), frozenset({"up", "loopback"}))
ETH = Interface("eth0", ("192.168.1.20",), UP)
MACHINE = (
    LO,
    ETH,
    Interface("docker0", ("172.17.0.1",), UP),
    Interface("veth12ab", ("169.254.3.4",), UP),
    Interface("br-0a1b", ("172.18.0.1",), UP),
    Interface("virbr0", ("192.168.122.1",), UP),
    Interface("tun0", ("10.8.0.2",), UP),
    Interface("wlan0", ("10.0.0.9",), frozenset({"multicast"})),
    Interface("enp3s0", ("169.254.9.9", "10.1.0.5"), UP),
)

tokens = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
hosts = st.from_regex(r"[a-z0-9.:-]{1,60}", fullmatch=True)
urls = st.from_regex(r"nats://[a-z0-9.]{1,40}:[0-9]{1,5}", fullmatch=True)
announcements = st.builds(
    Announcement,
    mesh_name=tokens,
    mesh_id=tokens | st.just(""),
    key_fingerprint=tokens | st.just(""),
    node_id=tokens,
    urls=st.lists(urls, max_size=16).map(tuple),
    role=st.sampled_from(ROLES),
    api=urls | st.just(""),
    version=st.from_regex(r"[0-9a-z.]{0,20}", fullmatch=True),
    at=st.integers(0, 10**15).map(lambda us: us / 1e6),
    supports=tokens | st.just(""),
    routes=st.lists(st.tuples(hosts, st.integers(1, 65535)), max_size=MAX_ROUTES).map(tuple),
)


def test_only_real_interfaces_are_used_and_link_local_addresses_last():
    choice = choose(MACHINE)
    assert choice.addresses == ("192.168.1.20", "10.1.0.5", "169.254.9.9") and not choice.reason


@pytest.mark.parametrize(
    ("named", "addresses"),
    [
        ("lo", ("127.0.0.1",)),
        ("docker0", ("172.17.0.1",)),
        ("10.1.0.5", ("10.1.0.5",)),
        ("wlan0", ()),
        ("nope", ()),
    ],
)
def test_a_named_interface_is_the_only_one(named, addresses):
    choice = choose(MACHINE, named)
    assert choice.addresses == addresses and bool(choice.reason) == (not addresses)


def test_without_a_network_loopback_is_used_and_the_reason_given():
    choice = choose((LO, Interface("docker0", ("172.17.0.1",), UP)))
    assert choice.addresses == ("127.0.0.1",) and "No real network interface" in choice.reason
    assert choose(read_interfaces()).addresses


def test_names_of_network_cards_are_not_taken_for_virtual():
    assert not any(map(is_virtual, ("eth0", "en0", "enp3s0", "wlp2s0", "wlan0", "eno1", "ens5", "bond0", "br0")))


@given(announcements)
def test_an_announcement_survives_its_txt_record(announced):
    properties = to_properties(announced)
    assert from_properties(properties) == announced
    text = b"".join(bytes([len(line)]) + line for line in (f"{k}={v}".encode() for k, v in properties.items()))
    assert from_txt(text) == announced


@given(st.binary(max_size=300))
def test_garbage_is_refused_without_an_exception(text):
    assert from_txt(text) is None or from_txt(text).node_id


fields = st.sampled_from(["mesh", "node", "role", "u0", "api", "at"])


@given(announcements, fields, st.sampled_from(["a b", "ü", ">", "\n"]))
def test_a_field_with_something_odd_in_it_is_refused(announced, field, odd):
    assert from_properties(to_properties(announced) | {field: odd}) is None


def test_what_is_too_long_is_an_error_of_the_announcer():
    with pytest.raises(ValueError, match="too long"):
        to_properties(Announcement("m", "", "", "n", ("nats://" + "x" * 300,), MEMBER))


@given(announcements, announcements, st.floats(0, 100))
def test_an_older_announcement_never_replaces_a_newer_one_that_was_just_heard(before, announced, heard_at):
    known = Sighting(before, 0.0, heard_at)
    after = heard(known, replace(announced, node_id=before.node_id), heard_at + 1.0, 0.0)
    assert (after is None) == (announced.at < before.at)
    if after:
        assert after.since == (0.0 if announced.role == before.role else heard_at + 1.0)
    # After a moment it does, so that a machine whose clock was set back is not ignored.
    assert heard(known, announced, heard_at + 3.0, 0.0) is not None


def test_an_announcement_that_is_not_repeated_expires():
    announced = Announcement("m", "", "", "n", (), MEMBER)
    known = [Sighting(announced, 0, 10)]
    assert still_valid(known, 10 + TTL_S - 0.1) and not still_valid(known, 10 + TTL_S)
