"""Language models: any GGUF header is read or refused, the choice of a backend, streamed text."""

from __future__ import annotations

import dataclasses
import struct
import tempfile
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.commands.watch import new_text
from node.executor.context import InputFault
from node.workloads.llm.generate import whole_characters
from node.workloads.llm.gguf import Head, read_head
from node.workloads.llm.llama_cpp import context_of, need_bytes
from node.workloads.llm.models import ModelUnavailable
from node.workloads.llm.result import Answer, Progress, Writing, before_stop, certain, figures
from node.workloads.llm.shapes import SHAPES, shape_of, size_of
from node.workloads.llm_inference import LIBRARIES, RUNS, choose

# --- the header of a GGUF file ---------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(facts: dict[str, bytes], tensors: list[tuple[str, list[int], int]], weights: bytes = b"") -> bytes:
    """`facts`: name -> type and value."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(facts))]
    parts += [text(name) + value for name, value in facts.items()]
    for name, shape, kind in tensors:
        parts.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0))
    return b"".join([*parts, weights])


def u32(value: int) -> bytes:
    return struct.pack("<II", 4, value)


def read(data: bytes) -> Head:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        file.write_bytes(data)
        return read_head(file)


counts = st.integers(1, 1 << 16)


@st.composite
def heads(draw) -> tuple[bytes, dict[str, int]]:
    """A file, and the facts that its header states."""
    heads, layers, width = draw(st.integers(1, 64)), draw(st.integers(0, 200)), draw(st.integers(1, 128))
    written = {"heads": heads, "layers": layers, "width": width, "context": draw(counts), "vocabulary": draw(counts)}
    facts = {
        "general.architecture": struct.pack("<I", 8) + text("llama"),
        "llama.attention.head_count": u32(heads),
        "llama.block_count": u32(layers),
        "llama.embedding_length": u32(heads * width),
        "llama.context_length": u32(written["context"]),
        # A vocabulary and a long list of numbers: the reader skips them.
        "tokenizer.ggml.tokens": struct.pack("<IIQ", 9, 8, 3) + text("a") + text("ü") + text(""),
        "tokenizer.ggml.scores": struct.pack("<IIQ", 9, 6, 2000) + bytes(8000),
    }
    if draw(st.booleans()):
        facts["tokenizer.chat_template"] = struct.pack("<I", 8) + text("{{ x }}")
    names = draw(st.permutations(sorted(facts)))
    shapes = draw(st.lists(st.lists(counts, min_size=1, max_size=4), max_size=5))
    tensors = [("token_embd.weight", [8, written["vocabulary"]], 2)]
    tensors += [(f"t{at}", shape, 2) for at, shape in enumerate(shapes)]
    written |= {"parameters": sum(prod(shape) for _, shape, _ in tensors), "weights": draw(st.integers(0, 300))}
    written["chat"] = "tokenizer.chat_template" in facts
    return gguf({name: facts[name] for name in names}, tensors, bytes(written["weights"])), written


@given(heads())
def test_a_header_is_read_as_it_was_written(made: tuple[bytes, dict[str, int]]) -> None:
    data, written = made
    assert read(data) == Head(
        "llama", written["parameters"], written["weights"], 2, written["context"],
        # Keys and values, each of the width of all heads, two bytes a number.
        written["layers"] * written["heads"] * written["width"] * 2 * 2, written["vocabulary"], written["chat"],
    )  # fmt: skip


def is_read_or_refused(data: bytes) -> None:
    try:
        head = read(data)
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
        return
    numbers = [value for value in dataclasses.asdict(head).values() if not isinstance(value, str)]
    assert all(isinstance(value, int) and value >= 0 for value in numbers) and head.context > 0
    assert need_bytes(head, context_of(head, None), 1) > 0


@given(heads(), st.data())
def test_a_damaged_header_is_read_or_refused(made: tuple[bytes, object], data: st.DataObject) -> None:
    whole = bytearray(made[0])
    at = data.draw(st.integers(4, len(whole)))
    is_read_or_refused(bytes(whole[:at]))
    whole[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    is_read_or_refused(bytes(whole))


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_are_read_or_refused(rest: bytes, tensors: int, entries: int) -> None:
    is_read_or_refused(rest)
    is_read_or_refused(b"GGUF" + rest)
    is_read_or_refused(b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + rest)


values = st.one_of(
    st.binary(max_size=20).map(lambda data: struct.pack("<IQ", 8, len(data)) + data),
    st.floats(width=32).map(lambda value: struct.pack("<If", 6, value)),
    st.integers(-(1 << 31), (1 << 31) - 1).map(lambda value: struct.pack("<Ii", 5, value)),
    st.integers(0, (1 << 64) - 1).map(lambda value: struct.pack("<IQ", 10, value)),
    st.lists(st.floats(width=32), max_size=3).map(
        lambda numbers: struct.pack(f"<IIQ{len(numbers)}f", 9, 6, len(numbers), *numbers)
    ),
    st.lists(st.integers(-9, 9), max_size=3).map(
        lambda numbers: struct.pack(f"<IIQ{len(numbers)}i", 9, 5, len(numbers), *numbers)
    ),
    st.just(struct.pack("<IIQ", 9, 8, 1) + text("x")),
    st.booleans().map(lambda value: struct.pack("<I?", 7, value)),
)
FACTS = ("attention.head_count", "attention.head_count_kv", "attention.key_length", "block_count", "context_length")


@given(st.dictionaries(st.sampled_from([f"llama.{name}" for name in (*FACTS, "embedding_length")]), values))
def test_facts_of_any_type_are_read_or_refused(facts: dict[str, bytes]) -> None:
    name = {"general.architecture": struct.pack("<I", 8) + text("llama")}
    is_read_or_refused(gguf(name | facts, [("token_embd.weight", [4, 4], 0)]))


@pytest.mark.parametrize("shape", [[], [1] * 5])
def test_a_tensor_has_one_to_four_dimensions(shape: list[int]) -> None:
    with pytest.raises(ValueError, match="is invalid"):
        read(gguf({}, [("token_embd.weight", shape, 0)]))


# --- backend, context and size ---------------------------------------------------------------------


@given(
    st.sampled_from(sorted(RUNS)),
    st.sampled_from(["auto", *LIBRARIES]),
    st.sets(st.sampled_from(sorted(LIBRARIES))),
    st.booleans(),
)
def test_the_chosen_backend_is_installed_capable_and_the_requested_one(
    form: str, wanted: str, installed: set[str], torch_gpu: bool
) -> None:
    able = set(RUNS[form]) & ({wanted} if wanted != "auto" else set(LIBRARIES))
    try:
        chosen = choose(form, wanted, installed, torch_gpu)
    except InputFault:
        assert not able
    except ModelUnavailable as error:
        assert able and not able & installed and "pip install 'queztl[" in str(error)
    else:
        assert chosen in able & installed
        if len(able & installed) == 2:
            assert chosen == ("torch" if torch_gpu else "llama.cpp")


@given(st.integers(1, 1 << 20), st.none() | st.integers(64, 1 << 20))
def test_the_context_has_the_requested_size(longest: int, wanted: int | None) -> None:
    head = Head("llama", 1, 1, 2, longest, 8, 10, False)
    try:
        room = context_of(head, wanted)
    except InputFault:
        assert wanted is not None and wanted > longest
        return
    asked = min(longest, 4096) if wanted is None else wanted
    assert room % 256 == 0 and asked <= room < asked + 256


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_size_class_has_the_size_of_its_name(name: str) -> None:
    assert shape_of(name) is shape_of(name.lower()) is SHAPES[name]
    assert abs(SHAPES[name].parameters / size_of(name) - 1) < 0.25


# --- streamed text ---------------------------------------------------------------------------------


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.text(max_size=5)), max_size=30))
def test_updates_carry_all_text_written_so_far(count: int, pieces: list[tuple[int, str]]) -> None:
    updates: list[tuple[float, str]] = []
    progress = Progress(lambda part, note="", text="": updates.append((part, text)), count, 8)
    texts = [""] * count
    for index, piece in pieces:
        progress.add(index % count, piece)
        texts[index % count] += piece
        assert updates[-1][1] == "\n\n".join(answer_text for answer_text in texts if answer_text)
    parts = [part for part, _ in updates]
    assert len(updates) == len(pieces) and parts == sorted(parts) and all(0 < part < 1 for part in parts)


@given(st.lists(st.text("ab", max_size=4), max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_update_contains_text_that_a_stop_string_removes(pieces: list[str], stops: list[str]) -> None:
    written, reported = "", ""
    for piece in pieces:
        written += piece
        now = certain(written, stops)
        assert now.startswith(reported) and before_stop(written, stops).startswith(now)
        reported = now
        if before_stop(written, stops) != written:
            break  # no text follows a stop string
    assert not any(stop in before_stop(written, stops) for stop in stops)
    # Only text that may become a stop string is held back.
    held = before_stop(written, stops)[len(reported) :]
    assert not held or any(stop.startswith(held) for stop in stops)


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_an_answer_is_the_same_in_any_pieces_and_nothing_stays_behind(whole, stops, data) -> None:
    at, pieces = 0, []
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole) - at))
        pieces.append(whole[at : at + size])
        at += size
    writing, by_letter = Writing(stops), Writing(stops)
    delivered = "".join(map(writing.add, pieces)) + writing.finish()
    for letter in whole:
        by_letter.add(letter)
    by_letter.finish()
    assert delivered == writing.text == by_letter.text == before_stop(whole, stops)
    assert writing.stopped == by_letter.stopped == any(stop in whole for stop in stops)
    assert not any(stop in delivered for stop in stops)


class Bytes:
    """A tokenizer of which each token is a byte."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def decode(self, ids: list[int], **options: bool) -> str:
        return bytes(ids).decode(errors="replace")


@given(st.text(st.sampled_from("a\N{REPLACEMENT CHARACTER}é日🙂"), max_size=6), st.integers(0, 24))
def test_a_character_that_is_not_complete_is_left_out_and_no_other_one(text: str, size: int) -> None:
    cut = text.encode()[:size]
    assert whole_characters(Bytes(), list(cut)) == cut.decode(errors="ignore")


@given(st.text(min_size=1), st.lists(st.integers(1, 8), max_size=20), st.integers(1, 30))
def test_watch_shows_the_text_with_marked_gaps(whole: str, steps: list[int], window: int) -> None:
    """Each state carries only the last characters; together they give the text, except for marked gaps."""
    shown, seen, end = 0, "", 0
    for step in [*steps, len(whole)]:
        end = min(len(whole), end + step)
        before = max(0, end - window)
        skipped = before > shown
        more, shown = new_text(SimpleNamespace(text=whole[before:end], text_from=before), shown)
        seen = (whole[:before] if skipped else seen) + more.removeprefix("…" if skipped else "")
        assert more.startswith("…") or not skipped
        assert shown == end and seen == whole[:end]


def test_watch_starts_a_new_line_when_the_text_starts_over() -> None:
    assert new_text(SimpleNamespace(text="ab", text_from=0), 10) == ("\nab", 2)
    assert new_text(SimpleNamespace(text="", text_from=0), 0) == ("", 0)


durations = st.floats(0, 100)


answered = st.builds(Answer, st.text(), st.just("stop"), *[st.integers(0, 999)] * 2, durations, durations)


@given(st.lists(answered, max_size=5))
def test_speeds_are_counts_by_times(answers: list[Answer]) -> None:
    found = figures(answers)
    assert found["completion_tokens"] == sum(answer.completion_tokens for answer in answers)
    assert all(value >= 0 for value in found.values())
    seconds = sum(answer.prefill_s for answer in answers)
    if seconds > 1e-3:
        assert found["prefill_tokens_per_s"] == pytest.approx(found["prompt_tokens"] / seconds, abs=1e-3)
