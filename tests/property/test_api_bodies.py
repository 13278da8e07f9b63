"""Any bytes of a request are plain data or a BadInput that names the fault."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.handlers.submission import read_request
from api.http.bodies import MAX_DEPTH, parse_json, parse_msgpack
from mesh.errors import BadInput, UnknownKind
from mesh.messages import encode
from mesh.tasks.validation import prepare

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NAMES = st.sampled_from(
    ["workload_type", "kind", "payload", "requires", "urgency", "timeout_s", "max_attempts", "delay_s",
     "expires_s", "idempotency_key", "origin", "cores", "labels", "accelerator", "node", "region", "other"]
)  # fmt: skip
VALUES = st.recursive(
    PLAIN | st.sampled_from(["echo", "crypto_mining", "high", "normal", 1, 0.5, 10**30]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)


@given(PLAIN)
def test_valid_json_is_parsed_to_the_same_value(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_data_or_a_fault(data: bytes) -> None:
    for parse in (parse_json, parse_msgpack):
        try:
            parse(data)
        except BadInput as refused:
            assert refused.faults and refused.faults[0].field == "body"


@given(st.integers(1, 400), st.booleans())
def test_nesting_is_bounded_at_the_same_depth_in_both_forms(depth: int, in_objects: bool) -> None:
    value: object = 1
    for _ in range(depth):
        value = {"a": value} if in_objects else [value]
    for parse, data in ((parse_json, json.dumps(value).encode()), (parse_msgpack, encode(value))):
        if depth <= MAX_DEPTH:
            assert parse(data) == value
        else:
            with pytest.raises(BadInput, match="nested deeper"):
                parse(data)


@given(st.dictionaries(NAMES, VALUES, max_size=8))
@example({"workload_type": None, "kind": "", "payload": {}})
def test_any_object_becomes_a_task_or_named_faults(body: dict[str, object]) -> None:
    from mesh.config import LAN

    try:
        prepare(read_request(body), "c1-1", 0.0, LAN)
    except UnknownKind:
        assert body.get("workload_type") or body.get("kind")
    except BadInput as refused:
        assert refused.faults and all(fault.problem for fault in refused.faults)
