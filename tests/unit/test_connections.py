"""What the bus says of connections, read without trust."""

from __future__ import annotations

import json

import pytest

from mesh import connections


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
def test_what_is_no_nodes_event(data: bytes) -> None:
    assert connections.read_event(data) is None


def test_a_list_of_connections() -> None:
    body = {"server": {"id": "S"}, "data": {"connections": [{"cid": 1, "name": "a/1"}, {"cid": 2}]}}
    assert connections.read_connz(json.dumps(body).encode()) == [("a", "1", ("S", 1))]
    assert connections.read_connz(b"[]") == []
