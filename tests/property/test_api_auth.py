"""The decision which requests to answer, for any Host and Origin."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.http.auth import Trust, decide, is_own
from mesh.errors import Forbidden, Misdirected

OWN = ("127.0.0.1", "127.9.9.9", "localhost", "LocalHost", "[::1]", "box", "box.local", "10.0.0.5", "localhost.")
FOREIGN = (
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.6", "0.0.0.0", "[::2]", "1.2.3.4",
    "evil@127.0.0.1", "127.0.0.1@evil", "", " ", "127.1", "2130706433", "0x7f000001", "box.evil", "[::1", "::1",
)  # fmt: skip
TRUST = Trust(8000, frozenset({"box", "box.local"}), frozenset({"proxy.example:443"}))


def ask(trust: Trust = TRUST, **facts: Any) -> object:
    given: dict[str, Any] = {"host": "127.0.0.1:8000", "local_address": "10.0.0.5", "origin": None, "fetch_site": None}
    return decide(trust, **(given | {"route_is_open": False} | facts))


@given(st.sampled_from(OWN), st.sampled_from(FOREIGN), st.integers(1, 65535))
def test_only_the_nodes_own_names_with_its_own_port_are_answered(own: str, foreign: str, port: int) -> None:
    assert ask(host=f"{own}:8000", origin=f"http://{own}:8000", fetch_site="same-origin") is None
    assert isinstance(ask(host=f"{foreign}:8000"), Misdirected)
    assert isinstance(ask(origin=f"http://{foreign}:8000"), Forbidden)
    assert (ask(host=f"{own}:{port}") is None) == (port == 8000)
    assert (ask(origin=f"http://{own}:{port}") is None) == (port == 8000)


@given(st.text(max_size=40), st.sampled_from([None, "same-origin", "same-site", "none", "CROSS-SITE "]))
def test_no_header_breaks_the_decision(text: str, site: str | None) -> None:
    refused = ask(host=text, fetch_site=site)
    assert isinstance(refused, Misdirected) or is_own(TRUST, text, "10.0.0.5")
    assert ask(host=None) is not None
    assert isinstance(ask(origin=text), Forbidden) or text.startswith("http")
    assert (ask(fetch_site=site) is None) == (site is None or "cross" not in site.lower())


@given(st.booleans(), st.booleans(), st.booleans())
def test_other_machines_need_an_open_route_or_an_open_api(loopback: bool, open_api: bool, route: bool) -> None:
    trust = Trust(8000, loopback_only=loopback, open_api=open_api)
    assert (ask(trust, route_is_open=route) is None) == (loopback or open_api or route)


def test_configured_host_names_and_default_ports() -> None:
    assert ask(host="Proxy.example:443") is None and ask(host="proxy.example") is not None
    assert ask(Trust(80), host="localhost", origin="http://localhost") is None
    assert isinstance(ask(Trust(80), host="localhost", origin="https://localhost"), Forbidden)
    assert ask(host="[::ffff:10.0.0.5]:8000", local_address="::ffff:10.0.0.5") is None
