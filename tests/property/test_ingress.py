"""Messages on `work.<kind>`: JSON and MessagePack are distinguished, anything else is refused with a reason."""

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
def test_json_and_messagepack_are_distinguished_by_the_first_byte(payload, content_type, space) -> None:
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
def test_a_payload_nested_too_deep_is_refused(data) -> None:
    with pytest.raises(BadInput):
        decode_payload(data, "")


def test_an_empty_message_means_all_defaults() -> None:
    assert decode_payload(b"", "") is None and decode_payload(b" \n", "application/json") is None


def test_headers_set_the_fields_of_the_rest_api() -> None:
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


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        ("Queztl-Urgancy", "Queztl-Urgency"), ("Queztl-Priority", "Queztl-"), ("queztl_timeout_s", "Queztl-Timeout-S"),
        ("Queztl-Timeout", "Queztl-Timeout-S"), ("Quetzal-Urgency", "Queztl-Urgency"),
        ("X-Queztl-Origin", "Queztl-Origin"),
        ("Queztl-Attempts", "Queztl-Max-Attempts"), ("Queztl-", "Queztl-"),
    ],
)  # fmt: skip
def test_a_mistyped_header_is_refused_and_the_nearest_valid_one_named(header, valid) -> None:
    with pytest.raises(BadInput, match=f"{header} is not a header of Queztl; the nearest is {valid}") as refused:
        request_of("echo", b"{}", {header: "1", "Queztl-Timeout-S": "soon"})
    assert [fault.field for fault in refused.value.faults] == [header, "Queztl-Timeout-S"]


def test_foreign_headers_and_other_cases_are_accepted() -> None:
    headers = {"queztl-urgency": "high", "Nats-Msg-Id": "7", "Priority": "1", "Origin": "x", "Queztl-Resent": "1"}
    assert request_of("echo", b"{}", headers).urgency == "high"
    assert request_of("echo", b"\x81\xa1a\x01", {"content-type": "application/msgpack"}).payload == {"a": 1}


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, ""])
def test_a_header_whose_value_is_no_json_is_refused(text) -> None:
    with pytest.raises(BadInput) as refused:
        request_of("echo", b"{}", {"Queztl-Requires": text})
    assert [fault.field for fault in refused.value.faults] == ["Queztl-Requires"] and len(str(refused.value)) < 300
