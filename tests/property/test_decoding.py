"""The decoders of messages from outside: any bytes give a usable value or a reason; no exception is raised."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import decoding, messages, subjects
from mesh.decoding import Decoder, Unreadable
from mesh.errors import ResultUnreadable
from mesh.membership import store_reports
from mesh.messages import Task, encode
from scaling.state import memory, orders, settings

DECODERS: dict[str, Decoder] = {
    found.name: found
    for module in (decoding, store_reports, memory, orders, settings)
    for found in vars(module).values()
    if isinstance(found, Decoder)
}
TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(string.ascii_letters + string.digits + "_-. *>@\r\n", min_size=1, max_size=8),
    st.sampled_from(["z-1", "a b-1", "../x", "x" * 200, "*", ">", ""]),
)
NUMBERS = st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.floats())
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
FIELDS = sorted(
    {
        field
        for name in dir(messages) + dir(decoding)
        if isinstance(kind := getattr(messages, name, None) or getattr(decoding, name, None), type)
        and issubclass(kind, msgspec.Struct)
        for field in kind.__struct_fields__
    }
)
RECORDS = st.dictionaries(st.sampled_from(FIELDS), PLAIN, max_size=8)
IDS = st.one_of(TEXTS, st.builds(subjects.task_id, st.sampled_from(["z", "a b"]), st.integers(0, 9)))


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.one_of(st.binary(max_size=64), st.one_of(PLAIN, RECORDS).map(encode)))
def test_any_bytes_give_a_value_or_a_reason(name: str, data: bytes) -> None:
    found = DECODERS[name](data)
    assert not isinstance(found, Unreadable) or found.reason


@given(
    task=st.builds(
        lambda **fields: fields,
        id=IDS,
        kind=st.one_of(TEXTS, st.just("echo")),
        pool=st.one_of(TEXTS, st.just("any")),
        urgency=st.one_of(TEXTS, st.just("normal")),
        timeout_s=st.one_of(NUMBERS, st.just(0.0)),
        blobs=st.lists(TEXTS, max_size=2),
        requires=st.dictionaries(st.sampled_from(["cores", "labels", "node"]), PLAIN, max_size=2),
    ),
    subject=st.one_of(st.none(), TEXTS),
)
def test_whatever_is_decoded_as_a_task_has_valid_subjects(task: dict, subject: str | None) -> None:
    subject = subject or f"work.{task['kind']}.{task['pool']}.{task['urgency']}.{task['id']}"
    found = decoding.lane_task(subject, encode(task))
    if isinstance(found, Task):
        assert subject == subjects.lane_subject(found.kind, found.pool, found.urgency, found.id)
        made = (subjects.end(found.id), subjects.state(found.id), subjects.dead(found.kind, found.id))
        assert not any(set(text) & set(" *>\r\n\t") for text in made)
        assert all("/" not in blob and "." not in blob for blob in found.blobs)
        subjects.split_task_id(found.id)


def test_a_record_that_cannot_be_read_is_logged_once_for_each_revision(caplog) -> None:
    from mesh.bus.kv import Entry

    for revision in (7, 7, 8, 7):
        assert decoding.readable(decoding.server, Entry("server.x", b"\x81\xa1x\x01", revision)) is None
    assert [record.getMessage().split(")")[0] for record in caplog.records] == [
        "the record server.x (revision 7", "the record server.x (revision 8",
    ]  # fmt: skip


BUILDERS = {
    name: made
    for name, made in vars(subjects).items()
    if callable(made) and getattr(made, "__module__", "") == subjects.__name__ and not name.startswith("_")
    and not name.startswith(("is_", "split_"))
    and name not in ("NotAToken", "host_of", "task_id", "event", "scaling_version")
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("hostile", ["a b", "a.b", "*", ">", "a\r\nb", "x\0", "é"])
def test_a_builder_refuses_an_invalid_token(name: str, hostile: str) -> None:
    build = BUILDERS[name]
    count = build.__code__.co_argcount
    for place in range(count):
        arguments = ["x-1"] * count
        assert build(*arguments)
        arguments[place] = hostile
        with pytest.raises(subjects.NotAToken):
            build(*arguments)


@given(data=st.one_of(st.binary(max_size=64), PLAIN.map(encode)))
def test_a_result_that_can_not_be_read_is_an_error_of_the_mesh(data: bytes) -> None:
    try:
        value = decoding.result(data)
    except ResultUnreadable as error:
        assert "submit the task again" in error.message
    else:
        assert not data or repr(value) == repr(msgspec.msgpack.decode(data))
