"""The servers that may be load-tested: only listed ones, and no forbidden address in any spelling."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import targets

FORBIDDEN_V4 = ["0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32", "168.63.129.16/32"]
FORBIDDEN_V6 = ["fe80::/10", "ff00::/8", "fd00:ec2::254/128", "::/128"]


def inside(networks: list[str]) -> st.SearchStrategy:
    return st.sampled_from(networks).flatmap(lambda network: st.ip_addresses(network=network))


bad_v4, bad_v6 = inside(FORBIDDEN_V4), inside(FORBIDDEN_V6)


def spellings_in_v6(address: ipaddress.IPv4Address) -> list[str]:
    number = int(address)
    high, low = number >> 16, number & 0xFFFF
    return [
        f"::ffff:{address}", f"::ffff:{high:x}:{low:x}", f"0:0:0:0:0:ffff:{high:x}:{low:x}", f"64:ff9b::{address}",
        f"2002:{high:x}:{low:x}::1", f"::ffff:0:{address}",
    ]  # fmt: skip


@given(bad_v4)
def test_a_forbidden_address_is_refused_in_every_ipv6_form(address):
    for text in (str(address), *spellings_in_v6(address)):
        assert targets.forbidden(text), text
        # Refused even when it is listed in the same spelling.
        target = f"[{text}]:80" if ":" in text else f"{text}:80"
        listed = targets.canonical(target)
        with pytest.raises(ValueError, match="never contacted"):
            targets.decide(listed, [listed], [text])


@given(bad_v6, st.sampled_from(["", "%eth0", "%1"]))
def test_a_forbidden_ipv6_address_is_refused_with_and_without_a_zone(address, zone):
    assert targets.forbidden(f"{address}{zone}")
    with pytest.raises(ValueError, match=r"leads to|zone"):
        listed = targets.canonical(f"[{address}{zone}]:1")
        targets.decide(listed, [listed], [f"{address}{zone}"])


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_has_one_spelling_and_all_others_are_refused(address):
    number = int(address)
    parts = str(address).split(".")
    odd = [
        str(number), hex(number), oct(number).replace("o", ""), ".".join(f"0{int(part):o}" for part in parts),
        ".".join(hex(int(part)) for part in parts), f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}", f"{address}.", f"0{address}",
    ]  # fmt: skip
    assert targets.canonical(f" {address}:080 ") == f"{address}:80"
    for text in odd:
        with pytest.raises(ValueError, match=r"IPv4|host name"):
            targets.canonical(f"{text}:80")


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_has_one_spelling(address):
    assert targets.canonical(f"[{address.exploded.upper()}]:0443") == f"[{address.compressed}]:443"


@given(st.text(max_size=40))
def test_any_text_is_spelled_once_or_refused_in_words(text):
    try:
        once = targets.canonical(text)
    except ValueError as error:
        assert str(error).startswith(("must", "has"))
    else:
        assert targets.canonical(once) == once and once.isascii() and once == once.strip().lower()
        assert not set(once) & set(" \r\n\t/@?#\\")


name = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z]\.(org|test)", fullmatch=True)
good = (
    st.ip_addresses(v=4)
    .filter(lambda address: not targets.forbidden(str(address)) and not address.is_loopback)
    .map(str)
)


@given(name, st.lists(good, min_size=1, max_size=4), bad_v4.map(str) | bad_v6.map(str), st.integers(0, 4))
def test_a_name_with_one_forbidden_address_is_refused(host, addresses, bad, at):
    target = f"{host}:80"
    assert targets.decide(target, [target], addresses) == addresses[0]
    with pytest.raises(ValueError, match="never contacted"):
        targets.decide(target, [target], [*addresses[:at], bad, *addresses[at:]])


loopbacks = st.sampled_from(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])


@given(name, st.lists(good, min_size=1, max_size=3), loopbacks)
def test_a_name_that_leads_to_this_machine_is_refused(host, addresses, loopback):
    with pytest.raises(ValueError, match="this machine itself"):
        targets.decide(f"{host}:80", [f"{host}:80"], [*addresses, loopback])
    assert targets.decide("localhost:80", ["localhost:80"], ["127.0.0.1"]) == "127.0.0.1"
    assert targets.decide("127.0.0.1:80", ["127.0.0.1:80"], ["127.0.0.1"]) == "127.0.0.1"
    assert targets.decide("[::1]:80", ["[::1]:80"], ["::1"]) == "::1"


@given(st.lists(name, max_size=4), name, st.integers(1, 65535))
def test_only_a_target_listed_with_its_port_is_allowed(listed, host, port):
    known = [f"{listed_name}:80" for listed_name in listed]
    target = f"{host}:{port}"
    if target in known:
        assert targets.decide(target, known, ["192.0.2.1"]) == "192.0.2.1"
    else:
        with pytest.raises(ValueError, match="--web-target"):
            targets.decide(target, known, ["192.0.2.1"])


def test_numeric_forms_that_a_resolver_accepts_are_checked_too():
    for text in ("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"):
        address = socket.getaddrinfo(text, 80, socket.AF_INET, flags=socket.AI_NUMERICHOST)[0][4][0]
        assert address == "169.254.169.254" and targets.forbidden(address)
