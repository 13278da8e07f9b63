"""What people publish to `work.<kind>`: JSON or MessagePack are told apart, anything else is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import BadInput
from mesh.messages import encode
from node.work.ingress import decode_payload, request_of

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 53), 1 << 53), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=10,
)
PAYLOADS = st.dictionaries(TEXT, VALUES, max_size=20)


@given(PAYLOADS, st.sampled_from(["", "text/plain"]), st.sampled_from([b"", b" \n"]))
def test_json_and_messagepack_are_told_apart_by_the_first_byte(payload, content_type, space) -> None:
    assert decode_payload(space + json.dumps(payload).encode(), content_type) == payload
    assert decode_payload(encode(payload), content_type) == payload


@given(VALUES)
def test_a_content_type_decides(value) -> None:
    assert decode_payload(json.dumps(value).encode(), "application/json; charset=utf-8") == value
    assert decode_payload(encode(value), "application/msgpack") == value or value is None


@given(st.binary(max_size=60), st.sampled_from(["", "application/json", "application/msgpack"]))
def test_any_bytes_are_a_value_or_refused(data, content_type) -> None:
    try:
        decode_payload(data, content_type)
    except BadInput as refused:
        assert refused.message and "\n" not in refused.message.strip()


@pytest.mark.parametrize("data", [b"[" * 200_000, b"\x91" * 200_000, b'{"a":' * 200_000])
def test_what_is_nested_too_deep_is_refused(data) -> None:
    with pytest.raises(BadInput):
        decode_payload(data, "")


def test_nothing_at_all_means_all_defaults() -> None:
    assert decode_payload(b"", "") is None and decode_payload(b" \n", "application/json") is None


def test_headers_set_what_rest_has_as_fields() -> None:
    headers = {
        "Queztl-Urgency": "high",
        "Queztl-Timeout-S": "2.5",
        "Queztl-Max-Attempts": "7",
        "Queztl-Requires": '{"cores": 2}',
        "Queztl-Origin": "eu",
        "Something-Else": "x",
    }
    request = request_of("echo", b"{}", headers)
    assert (request.kind, request.payload, request.urgency, request.origin) == ("echo", {}, "high", "eu")
    assert (request.timeout_s, request.max_attempts, request.requires) == (2.5, 7, {"cores": 2})


@given(st.text(max_size=10))
def test_a_wrong_header_is_refused_by_name(text) -> None:
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(BadInput, match="Queztl-Timeout-S"):
            request_of("echo", b"{}", {"Queztl-Timeout-S": text})
