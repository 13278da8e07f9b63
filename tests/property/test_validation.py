"""A request becomes a task that can be sent, or is refused with every wrong field named."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import subjects
from mesh.config import LAN
from mesh.errors import BadInput, UnknownKind
from mesh.messages import Task, decode_any, encode
from mesh.tasks import validation
from mesh.tasks.validation import prepare
from mesh.views import SubmitRequest

PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
        st.binary(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), inner, max_size=4),
    ),
    max_leaves=12,
)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.none(), max_size=2),
    st.just("\ud800"), st.just(1 << 70), st.dictionaries(st.just("x"), st.just("\ud800")),
)  # fmt: skip


@given(PLAIN, st.sampled_from(subjects.URGENCIES), st.none() | st.integers(1, 100), st.floats(0, 1000))
def test_the_payload_arrives_unchanged(value, urgency, attempts, delay_s) -> None:
    request = SubmitRequest("echo", {"value": value}, urgency=urgency, max_attempts=attempts, delay_s=delay_s)
    prepared = prepare(request, "c1-1", 123.0, LAN)
    task = msgspec.msgpack.decode(encode(prepared.task), type=Task)
    assert decode_any(task.payload) == {"value": value}
    assert (task.id, task.kind, task.urgency, task.submitted_at) == ("c1-1", "echo", urgency, 123.0)
    assert task.max_attempts == (LAN.max_attempts if attempts is None else attempts)
    assert prepared.lane == ("echo", "any", urgency) and prepared.delay_s == delay_s


FIELDS = ("requires", "urgency", "timeout_s", "max_attempts", "delay_s", "expires_s", "idempotency_key", "origin")


@given(st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4), ODD)
def test_any_input_is_either_refused_or_can_be_sent(options, payload) -> None:
    try:
        prepared = prepare(SubmitRequest("echo", payload, **options), "c1-1", 0.0, LAN)
    except BadInput as refused:
        assert refused.faults and all(fault.problem for fault in refused.faults)
    else:
        assert msgspec.msgpack.decode(encode(prepared.task), type=Task).id == "c1-1"
        (options.get("idempotency_key") or "").encode()


@given(ODD)
def test_an_unknown_kind_is_refused_whatever_it_is(kind) -> None:
    with pytest.raises(UnknownKind):
        prepare(SubmitRequest(kind, {}), "c1-1", 0.0, LAN)


def test_every_wrong_field_is_named_at_once() -> None:
    request = SubmitRequest(
        "echo",
        {"sleep_s": -1, "nonsense": 1},
        requires={"cores": 0, "colour": "red"},
        urgency="soon",
        timeout_s=float("nan"),
        max_attempts=101,
        delay_s=-1,
        idempotency_key="k" * 256,
        origin="a.b",
    )
    with pytest.raises(BadInput) as refused:
        prepare(request, "c1-1", 0.0, LAN)
    named = {fault.field for fault in refused.value.faults}
    assert named == {
        "payload.sleep_s", "payload.nonsense", "requires.cores", "requires.colour", "urgency", "timeout_s",
        "max_attempts", "delay_s", "idempotency_key", "origin",
    }  # fmt: skip
    message = refused.value.message
    assert all(f"{fault.field} {fault.problem}" in message for fault in refused.value.faults), message
    with pytest.raises(BadInput, match="timeout_s must lie between"):
        prepare(SubmitRequest("echo", {}, timeout_s=-1), "c1-1", 0.0, LAN)


@pytest.mark.parametrize("attempts", [0, -1, 101, True, 1.0, "3"])
def test_attempts_that_are_not_1_to_100_are_refused(attempts) -> None:
    with pytest.raises(BadInput, match="max_attempts must be a whole number from 1 to 100"):
        prepare(SubmitRequest("echo", {}, max_attempts=attempts), "c1-1", 0.0, LAN)


def test_a_payload_nested_too_deep_is_refused() -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    try:
        with pytest.raises(BadInput):
            prepare(SubmitRequest("echo", {"value": deep}), "c1-1", 0.0, LAN)
    finally:
        while deep:  # unnested level by level: freeing it at once would recurse as deep
            deep = deep.pop()


def test_blobs_are_found_wherever_the_payload_names_them() -> None:
    payload = {"value": [{"blob": "b-t1"}, {"x": {"blob": "b-k2"}}, {"blob": "no id"}]}
    assert prepare(SubmitRequest("echo", payload), "c1-1", 0.0, LAN).task.blobs == ("b-t1", "b-k2")


@given(st.floats(1, 100), st.floats(0, 100))
def test_a_delayed_task_expires_counted_from_its_start(expires_s, delay_s) -> None:
    task = prepare(SubmitRequest("echo", {}, delay_s=delay_s, expires_s=expires_s), "c1-1", 10.0, LAN).task
    assert task.expires_s == expires_s  # from when its lane gets it: after the delay
    assert prepare(SubmitRequest("echo", {}), "c1-1", 10.0, LAN).task.expires_s == 0.0
    assert validation.MAX_DELAY_S >= 365 * 24 * 3600
