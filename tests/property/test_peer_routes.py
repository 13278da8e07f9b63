"""Which addresses a bus server uses for the others, and what a node says that waits for them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.server.data_dir import MARKER, BusMarker, Member, read_marker, write_marker
from mesh.cluster.routes import announced_routes, join_routes, member_urls
from mesh.cluster.waiting import KnownServers, advice, known_members, view_of, waiting_network
from mesh.discovery.announcement import ROLES, Announcement
from mesh.discovery.identity import MeshIdentity

OURS = "mours"
COMMAND = "queztl bus rescue --data /data --yes"
_nodes = st.sampled_from(["n1", "n2", "n3", "n4", "n5"])
_routes = st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.1.0.1"]), st.integers(1, 9)), max_size=3).map(tuple)
_peers = st.lists(
    st.builds(
        Announcement, st.just("home"), st.sampled_from([OURS, "mother", ""]), st.just(""), _nodes,
        st.lists(st.sampled_from(["nats://a:1", "nats://b:1"])).map(tuple), st.sampled_from(ROLES), routes=_routes,
    ),
    max_size=6,
)  # fmt: skip


@given(_peers, st.none() | st.sets(_nodes))
def test_only_known_nodes_of_the_same_mesh_are_believed(peers: list[Announcement], known: set[str] | None) -> None:
    found = announced_routes(peers, OURS, known)
    for node, routes in found.items():
        assert known is None or node in known
        assert routes in [peer.routes for peer in peers if peer.mesh_id == OURS and peer.node_id == node]
    heard = {peer.node_id for peer in peers if peer.mesh_id == OURS and peer.routes}
    assert set(found) == (heard if known is None else heard & known)
    assert set(member_urls(peers, OURS)) <= {url for peer in peers if peer.mesh_id == OURS for url in peer.urls}


@given(st.lists(_routes), _routes)
def test_routes_are_joined_without_repeats_and_without_the_own_server(
    lists: list[tuple[tuple[str, int], ...]], own: tuple[tuple[str, int], ...]
) -> None:
    joined = join_routes(*lists, own=own)
    assert len(set(joined)) == len(joined)
    assert set(joined) == {route for routes in lists for route in routes} - set(own)


@given(st.sets(_nodes), st.sets(_nodes), st.integers(0, 5), st.booleans())
def test_the_command_for_lost_machines_is_shown_only_without_a_majority(
    members: set[str], reached: set[str], size: int, led: bool
) -> None:
    known = KnownServers("n1", dict.fromkeys(members, ()), frozenset(reached), frozenset(), size, led, COMMAND)
    view = view_of(known)
    total = max(size, len(members), len(reached))
    lost = not led and len(reached) * 2 <= total
    assert view.if_lost == (COMMAND if lost and reached else "")
    assert view.needed == (total // 2 + 1 if total else 0)
    assert (COMMAND in advice(view)) == bool(view.if_lost)
    assert view.reason and "\n" not in view.reason
    if lost and members:
        assert all(node in view.reason for node in members - reached)
    network = waiting_network(MeshIdentity(OURS, "home", 0.0, ""), ["nats://a:1"], view)
    assert network.waiting == view and not network.alarms[0][0].islower() and network.bus.safety == view.reason


def test_who_waits_for_whom_in_words() -> None:
    members = {"n1": [("10.0.0.1", 6222)], "n2": [("10.0.0.2", 6222), ("10.1.0.2", 6222)], "n3": []}
    view = view_of(KnownServers("n1", members, frozenset({"n1"}), frozenset({"n3"}), 3, False, COMMAND))
    assert view.reason == (
        "1 of 3 bus servers of this mesh is there (n1), 2 are needed, so this node waits; start the missing nodes: "
        "n2 (last at 10.0.0.2, 10.1.0.2), n3 (heard on this network but not connected)"
    )
    assert (view.members, view.reached, view.heard, view.needed) == (("n1", "n2", "n3"), ("n1",), ("n3",), 2)
    assert advice(view).endswith(f"run on this machine: {COMMAND}")


def test_a_data_directory_keeps_who_the_other_servers_are(tmp_path: Path) -> None:
    members = (Member("n2~abc", (("10.0.0.2", 6222),)), Member("n3~def"))
    marker = BusMarker(OURS, "n1", 4222, 6222, 6223, (("10.0.0.2", 6222),), members)
    write_marker(tmp_path, marker)
    assert read_marker(tmp_path) == marker and marker.others == ("n2", "n3")
    assert known_members(marker) == {"n1": (), "n2": (("10.0.0.2", 6222),), "n3": ()}


def test_a_data_directory_of_an_earlier_version_names_no_members(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(
        '{"version": 1, "mesh_id": "mours", "server_name": "n1", "client_port": 4222, "cluster_port": 6222, '
        '"witness_port": 6223, "peers": [["10.0.0.2", 6222]]}'
    )
    assert read_marker(tmp_path) == BusMarker(OURS, "n1", 4222, 6222, 6223, (("10.0.0.2", 6222),))
