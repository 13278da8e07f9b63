"""The targets that web_server_load may contact, and the bounds of its payload."""

from __future__ import annotations

import socket

import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import InputFault
from tests.web_servers import OK, answering, load_test_in


@pytest.fixture
def run(tmp_path):
    return load_test_in(tmp_path)


def test_a_target_that_is_not_listed_is_refused_and_nothing_is_sent(run):
    with answering(lambda number: OK) as server:
        for listed in ([], ["127.0.0.1:1"], [f"localhost:{server.port}"]):
            with pytest.raises(InputFault, match=r"payload\.target is not listed .*--web-target"):
                run({"requests": 1, "target": server.target}, listed=listed)
        assert server.connections == 0


@pytest.mark.parametrize("target", ["169.254.169.254:80", "[fe80::1]:80", "[::ffff:a9fe:a9fe]:80", "0.0.0.0:80"])
def test_a_forbidden_address_is_refused_although_listed(run, target):
    with pytest.raises(InputFault, match="never contacted"):
        run({"requests": 1, "target": target}, listed=[target])


def test_a_name_is_looked_up_once_and_a_later_change_does_not_redirect_requests(run, monkeypatch):
    looked_up = []

    def look_up(host, port, *rest, **more):
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with (
        answering(lambda number: OK) as first,
        answering(lambda number: OK, address="127.0.0.2", port=first.port) as other,
    ):
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        name = f"localhost:{first.port}"
        result = run({"requests": 20, "keep_alive": False, "warm_up_s": 0, "target": name}, listed=[name])
        assert result["requests"] == 20 and result["address"] == first.target
        assert looked_up == ["localhost"] and first.connections >= 20 and other.connections == 0
        assert all(f"\r\nHost: {name}\r\n".encode() in head for head in first.seen)


def test_an_unknown_host_name_is_an_input_fault(run, monkeypatch):
    def nobody(*rest, **more):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(InputFault, match=r"can't be looked up on this node: .*not known"):
        run({"target": "nowhere.test:80"}, listed=["nowhere.test:80"])


@pytest.mark.parametrize(
    ("payload", "field", "problem"),
    [
        ({"mode": "open"}, "payload.rate_per_s", "must be given"),
        ({"mode": "open", "rate_per_s": 1e9}, "payload.rate_per_s", "at most 200000"),
        ({"mode": "open", "rate_per_s": 200_000, "seconds": 600}, "payload", "at most 50000000 requests"),
        ({"mode": "open", "rate_per_s": float("nan")}, "payload.rate_per_s", "finite"),
        ({"rate_per_s": 10}, "payload.rate_per_s", "left out in closed mode"),
        ({"seconds": 1e6}, "payload.seconds", "at most 600"),
        ({"connections": 100_000}, "payload.connections", "at most 1024"),
        ({"body_bytes": 1}, "payload.body_bytes", "left out with GET"),
        ({"method": "POST", "body_bytes": 1 << 30}, "payload.body_bytes", "at most"),
        ({"route": "echo"}, "payload.route", "must not be echo with GET"),
        ({"target": "127.0.0.1:80", "path": "/\r\nX: y"}, "payload.path", "printable ASCII"),
        ({"target": "127.0.0.1:80", "path": "//a b"}, "payload.path", "printable ASCII"),
        ({"target": "a.test:80\r\nX: y"}, "payload.target", "HOST:PORT"),
        ({"target": "2130706433:80"}, "payload.target", "four decimal numbers"),
        ({"target": "http://a.test:80"}, "payload.target", "host name"),
        ({"target": "a.test:80", "route": "json"}, "payload", "leave out route when target is given"),
        ({"path": "/x"}, "payload", "leave out path unless target is given"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(payload, field, problem):
    with pytest.raises(BadInput) as caught:
        validate("web_server_load", payload)
    assert [(fault.field, problem in fault.problem) for fault in caught.value.faults] == [(field, True)]
