"""Every wire type survives encoding, ignores fields that a newer node adds, and is frozen."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from mesh import coordination, messages
from mesh.messages import NOTHING, BlobRef, Raw, Task, TaskEnd, TaskError, TaskState, encode

WIRE = sorted(
    (
        kind
        for module in (messages, coordination)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    ),
    key=lambda kind: kind.__name__,
)
SAMPLES = {
    str: "x", int: 3, float: 1.5, bool: True, "tuple": (), "dict": {}, Task: Task(id="c1-1", kind="echo"),
    TaskEnd: TaskEnd(id="c1-1", kind="echo", state="done"),
}  # fmt: skip


def made(kind):
    """An instance with values in its required fields."""
    values = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            plain = getattr(field.type, "__origin__", field.type)
            values[field.name] = SAMPLES[plain.__name__ if plain in (tuple, dict) else plain]
    return kind(**values)


@pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
def test_a_message_survives_encoding_and_decoding(kind) -> None:
    message = made(kind)
    assert msgspec.msgpack.decode(encode(message), type=kind) == message


@pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
def test_a_reader_ignores_what_a_newer_node_adds(kind) -> None:
    message = made(kind)
    newer = msgspec.msgpack.decode(encode(message)) | {"added_later": [1, {"x": 2}]}
    assert msgspec.msgpack.decode(encode(newer), type=kind) == message


@pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
def test_messages_are_frozen(kind) -> None:
    message = made(kind)
    field = kind.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(message, field, getattr(message, field))


def test_a_payload_is_carried_undecoded() -> None:
    task = Task(id="c1-1", kind="echo", payload=Raw(encode({"value": b"\x00\xff"})))
    assert bytes(msgspec.msgpack.decode(encode(task), type=Task).payload) == encode({"value": b"\x00\xff"})


def test_no_payload_and_no_result_are_left_out() -> None:
    replaced = msgspec.structs.replace(Task(id="c1-1", kind="echo", payload=Raw(b"\x80")), payload=NOTHING)
    assert msgspec.msgpack.decode(encode(replaced), type=Task) == Task(id="c1-1", kind="echo")
    end = TaskEnd(id="c1-1", kind="echo", state="failed", result=NOTHING)
    assert msgspec.msgpack.decode(encode(end), type=TaskEnd) == end


def test_what_is_not_set_is_not_sent() -> None:
    assert set(messages.decode_any(encode(Task(id="c1-1", kind="echo", payload=Raw(encode({})))))) == {
        "id", "kind", "payload",
    }  # fmt: skip
    assert len(encode(TaskState(id="c1-1", kind="echo", state="running"))) < 60


def test_an_end_carries_its_error_and_the_reference_of_its_result() -> None:
    end = TaskEnd(
        id="c1-1",
        kind="image_processing",
        state="failed",
        error=TaskError("bad_input", "no image", (("payload.data", "is no image"),)),
        result_ref=BlobRef("b-t1", 5, "image/png"),
        info={"width": 3},
    )
    again = msgspec.msgpack.decode(encode(end), type=TaskEnd)
    assert again == end and again.error.faults[0] == ("payload.data", "is no image")
