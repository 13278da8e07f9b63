"""Connection events of the bus, parsed as untrusted input."""

from __future__ import annotations

import json

import pytest

from mesh.bus.wire import Message
from mesh.membership import connections


def event(name: str, reason: str = "") -> bytes:
    body = {"server": {"id": "S"}, "client": {"id": 7, "name": name}, "reason": reason}
    return json.dumps(body).encode()


def test_a_nodes_event() -> None:
    name = connections.connection_name("a", "1")
    assert connections.read_event(event(name, "Kicked")) == ("a", "1", ("S", 7), "Kicked")


@pytest.mark.parametrize(
    "data",
    [event(""), event("system"), event("a/"), b"no json", b"{}", b"[]", b'{"client": 3}', b'{"client": {}}'],
)
def test_events_of_other_clients_and_garbage_are_ignored(data: bytes) -> None:
    assert connections.read_event(data) is None


def test_a_list_of_connections() -> None:
    body = {"server": {"id": "S"}, "data": {"connections": [{"cid": 1, "name": "a/1"}, {"cid": 2}]}}
    assert connections.read_connz(json.dumps(body).encode()) == [("a", "1", ("S", 1))]
    assert connections.read_connz(b"[]") == []


class RecordingRegistry:
    """Records the calls that the registry would get."""

    def __init__(self) -> None:
        self.closed: list[tuple[str, str, tuple[str, int]]] = []

    def connection_closed(self, *what) -> None:
        self.closed.append(what)


@pytest.mark.parametrize(
    ("reason", "counts"),
    [("Client Closed", True), ("Kicked", True), ("", True), ("Server Shutdown", False), ("Lame Duck Mode", False)],
)
def test_a_server_that_shuts_down_does_not_report_nodes_as_disconnected(reason: str, counts: bool) -> None:
    registry = RecordingRegistry()
    watcher = connections.Connections(None, registry)
    watcher._on_disconnect(Message("$SYS.ACCOUNT.MESH.DISCONNECT", "", event("a/1", reason)))
    assert registry.closed == [("a", "1", ("S", 7))] * counts
