"""The pure parts of `queztl`: arguments, formatting, names of outputs, the journal of `map`, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.batch import journal as map_journal
from api.cli.batch.inputs import find_inputs
from api.cli.batch.journal import NAME, Journal, Remembered, missing, read
from api.cli.batch.names import MAX_STEM_BYTES, allot, data_fields, file_field
from api.cli.input.arguments import count, field_and_path, json_object, json_value, seconds
from api.cli.output import exit_codes, results
from api.cli.output.console import Output
from api.cli.output.formatting import duration, moment, printable, size
from api.cli.output.json_types import type_of
from mesh import errors
from mesh.errors import BadInput, Fault
from mesh.kinds.table import KINDS, find
from mesh.media_types import extension

PATHS = st.lists(
    st.builds(
        lambda folder, name: f"/{folder}/{name}",
        st.sampled_from(["a", "b", "Ä"]),
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80)
        | st.sampled_from(["x.png", "X.jpg", "x.tar.gz", ".x", "failures.json", "a-x.png"]),
    ),
    unique=True,
)


def test_starting_the_command_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from api.cli import main as cli\n"
        "cli.parser().parse_args(['map', 'echo', '.', '--out', 'o'])\n"
        "heavy = ('asyncio', 'urllib.request', 'pydantic', 'msgspec', 'nats', 'aiohttp', 'rich', 'numpy')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_client_loads_one_contract_and_no_websockets() -> None:
    script = (
        "import sys\n"
        "import mesh.client\n"
        "from mesh.kinds.table import KINDS, find\n"
        "find('echo')\n"
        "print(sorted({'aiohttp', *(f'mesh.kinds.{kind}' for kind in KINDS)} & {*sys.modules}))\n"
        "import aiohttp, multidict\n"
        "print(len([KINDS[kind] for kind in KINDS]) == len(KINDS), aiohttp.ClientSession.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['mesh.kinds.echo']", "True ClientSession"]


# --- inputs ---------------------------------------------------------------------------------------


def test_json_comes_from_the_argument_a_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.json").write_text('{"ü": 1}', encoding="utf-8")
    assert json_value('{"value": [1, null]}') == {"value": [1, None]}
    assert json_value(f"@{tmp_path / 'p.json'}") == {"ü": 1}
    with (tmp_path / "p.json").open(encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert json_value("-") == {"ü": 1}
    with pytest.raises(FileNotFoundError):
        json_value("@/no/such/file")


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: json_value("{a: 1}"), "payload"),
        (lambda: json_value(""), "payload"),
        (lambda: json_object("[1]", "the option requires"), "requires"),
        (lambda: json_object("nonsense", "the option requires"), "requires"),
    ],
)
def test_invalid_json_names_the_field(call, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        call()
    assert [fault.field for fault in caught.value.faults] == [field]


def test_arguments_become_numbers_or_an_error() -> None:
    assert (seconds("0"), seconds("1.5"), seconds("1e3")) == (0.0, 1.5, 1000.0)
    assert count("12") == 12
    assert field_and_path("image=a=b.jpg") == ("image", Path("a=b.jpg"))
    for parse, values in (
        (seconds, ("-1", "nan", "inf", "1s", "")),
        (count, ("0", "-1", "1.0", "²", "")),
        (field_and_path, ("image", "=x", "image=", "")),
    ):
        for value in values:
            with pytest.raises(argparse.ArgumentTypeError):
                parse(value)


def test_inputs_are_files_each_once_and_folders_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a", ".hidden", "folder/inner"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    found = find_inputs([Path("b"), Path("."), tmp_path / "b"], tmp_path / "out")
    assert list(found.files) == [str(tmp_path / "b"), str(tmp_path / "a")]
    with pytest.raises(BadInput) as caught:
        find_inputs([Path("a"), Path("none"), Path("nor")], tmp_path / "out")
    assert [fault.field for fault in caught.value.faults] == ["none", "nor"]


# --- formatting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds_", "text"),
    [
        (-1, "-"), (0, "0 ms"), (0.0123, "12.3 ms"), (0.25, "250 ms"), (1, "1 s"), (59.94, "59.9 s"), (60, "1 min"),
        (75, "1 min 15 s"), (3599.6, "1 h"), (7500, "2 h 5 min"), (200_000, "2 d 7 h"), (172_800, "2 d"),
    ],
)  # fmt: skip
def test_durations(seconds_: float, text: str) -> None:
    assert duration(seconds_) == text


@pytest.mark.parametrize(
    ("count_", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 << 10, "200 KiB"), (3 << 30, "3.0 GiB")],
)
def test_sizes(count_: int, text: str) -> None:
    assert size(count_) == text


def test_moments_are_the_wall_clock_and_the_distance() -> None:
    assert moment(0, 1e9) == "-"
    assert moment(1e9, 1e9 + 75).endswith(" (1 min 15 s ago)")
    assert moment(1e9 + 5, 1e9).endswith(" (in 5 s)")
    assert moment(1e9, 1e9 + 1e6).startswith("2001-09-")


@given(st.text())
def test_no_control_character_is_printed(text: str) -> None:
    shown = printable(text, keep_lines=True)
    assert len(shown) == len(text)
    assert all(letter in "\n\t" or not (ord(letter) < 32 or 127 <= ord(letter) < 160) for letter in shown)


@given(st.text() | st.text(st.sampled_from("a \n\r\t\v\x1b\x85\u2028\u2029\u202e\u2066")))
def test_a_cell_is_one_line(text: str) -> None:
    shown = printable(text)
    assert len(f"x{shown}x".splitlines()) == 1
    assert not any(unicodedata.category(letter) == "Cc" or letter in "\u202a\u202e\u2066\u2069" for letter in shown)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 1 << 32}, f"integer 0..{(1 << 32) - 1}"),
        ({"type": "integer", "exclusiveMinimum": 0}, "integer 1.."),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number >0..1"),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, "number 0.5..<2"),
        ({"type": "integer", "maximum": 9}, "integer ..9"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),
        ({"type": "array", "items": {"type": "boolean"}}, "list of boolean"),
        ({"enum": ["a", 1]}, '"a" | 1'),
        ({"$ref": "#/$defs/Blob"}, "{blob, size}"),
        ({}, "any"),
    ],
)
def test_types_of_fields(field: dict, text: str) -> None:
    assert type_of(field, {"Blob": {"properties": {"blob": {}, "size": {}}}}) == text


# --- names of outputs -----------------------------------------------------------------------------


@given(PATHS, PATHS, st.lists(st.sampled_from(["x.json", "X.png", "a-x.json"])))
def test_no_two_inputs_share_a_name_and_names_are_kept(first: list[str], more: list[str], foreign: list[str]) -> None:
    known = allot(dict.fromkeys(first, ""), {}, foreign)
    both = list(dict.fromkeys([*more, *first]))
    names = allot(dict.fromkeys(both, ""), known, [*foreign, *(f"{stem}.json" for stem in known.values())])
    assert set(names) == set(both) and all(names[path] == stem for path, stem in known.items())
    assert len({stem.casefold() for stem in names.values()}) == len(names)
    taken = {Path(name).stem.casefold() for name in foreign}
    for stem in names.values():
        assert stem and "/" not in stem and not stem.startswith(".") and stem.casefold() not in taken
        assert len(os.fsencode(stem)) <= MAX_STEM_BYTES + 8


def test_the_same_name_in_two_folders_gets_the_name_of_the_folder() -> None:
    inputs = ["/p/2023/x.png", "/p/2024/x.jpg", "/q/2024/x.jpg", "/p/Failures.json"]
    assert allot(dict.fromkeys(inputs, ""), {}, ["failures.json"]) == {
        "/p/2023/x.png": "x",
        "/p/2024/x.jpg": "2024-x",
        "/q/2024/x.jpg": "2024-x-2",
        "/p/Failures.json": "p-Failures",
    }


def test_the_field_that_takes_a_file() -> None:
    assert {name: data_fields(spec) for name, spec in KINDS.items() if data_fields(spec)} == {
        "echo": ("data",),
        "image_processing": ("image",),
        "ml_training": ("data", "start_from"),
        **{f"video_encode_{codec}": ("video",) for codec in ("h264", "h265", "av1")},
    }
    assert file_field(find("echo"), None) == file_field(find("echo"), "data") == "data"
    assert file_field(find("ml_training"), None) == "data"
    for kind, wanted in (("echo", "value"), ("crypto_mining", None)):
        with pytest.raises(BadInput):
            file_field(find(kind), wanted)


# --- the journal of map ---------------------------------------------------------------------------


def test_the_key_of_an_output_depends_on_every_fact_but_not_on_the_order_of_keys() -> None:
    facts: tuple[Any, ...] = ("/a", 1, 2, "echo", "data", {"value": 1, "seed": 2})
    assert map_journal.key(*facts) == map_journal.key("/a", 1, 2, "echo", "data", {"seed": 2, "value": 1})
    for place in range(6):
        other = [*facts]
        other[place] = "other"
        assert map_journal.key(*other) != map_journal.key(*facts)


def test_an_input_is_missing_without_an_output_of_the_same_key() -> None:
    remembered = Remembered(done={"same": ("k1", "a"), "changed": ("k0", "b"), "removed": ("k1", "c")})
    keys = {"same": "k1", "changed": "k1", "removed": "k1", "new": "k1"}
    assert missing(keys, remembered, ["a", "b", "stranger"]) == ["changed", "removed", "new"]


@given(st.integers(0, 400), st.sampled_from(["", "null", "[]", "{}", "7", '{"input": "a", "ke', "\ufffd"]))
def test_a_truncated_journal_keeps_its_whole_lines(cut: int, garbage: str) -> None:
    entries = [("a", "k1", "o1"), ("b", "k2", "o2"), ("a", "k3", "o3")]
    lines = ['{"input": "a", "stem": "s"}']
    lines += [json.dumps({"input": name, "key": key, "output": output}) for name, key, output in entries]
    ends = [len("\n".join(lines[: number + 1])) for number in range(len(lines))]
    whole = sum(cut >= end for end in ends)
    found = read(f"{chr(10).join(lines)}\n"[:cut] + f"\n{garbage}\n")
    assert found.stems == ({"a": "s"} if whole else {})
    assert found.done == {name: (key, output) for name, key, output in entries[: max(0, whole - 1)]}


def test_a_journal_remembers_and_is_locked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.name({"a": "s", "b": "t"})
    journal.finished("a", "k", "s.json")
    with pytest.raises(BadInput, match="another `queztl map`"):
        Journal(tmp_path)
    journal.close()
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"input": "b", "ke')
    again = Journal(tmp_path)
    assert again.remembered == Remembered({"a": "s", "b": "t"}, {"a": ("k", "s.json")}, {"s.json"})
    again.name({"a": "s"})
    again.finished("b", "k", "t.json")
    again.close()
    last = Journal(tmp_path)
    assert last.remembered.done == {"a": ("k", "s.json"), "b": ("k", "t.json")}
    last.close()


# --- results and exit codes -----------------------------------------------------------------------


async def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    async def source(breaks: bool):
        yield b"new "
        if breaks:
            raise errors.BusUnavailable
        yield b"content"

    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(errors.BusUnavailable):
        await results.save(source(breaks=True), target)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
    assert await results.save(source(breaks=False), target) == 11
    assert target.read_bytes() == b"new content" and list(tmp_path.iterdir()) == [target]


def test_drafts_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {f".a.json.{ended.pid}.part": False, f".a.json.{os.getpid()}.part": True, ".x.part": True, "a.part": True}
    for name in names:
        (tmp_path / name).write_bytes(b"")
    results.remove_drafts(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_extensions_are_the_same_on_every_machine() -> None:
    types = {"": ".json", "image/jpeg": ".jpg", "IMAGE/PNG; q=1": ".png", "text/plain": ".txt", "x/odd": ".bin"}
    assert {name: extension(name) for name in types} == types


def test_every_error_has_a_code_that_the_help_explains() -> None:
    def below(kind: type) -> list[type]:
        return [kind, *(error for inner in kind.__subclasses__() for error in below(inner))]

    expected = {
        errors.BusUnavailable: 3, errors.Busy: 6, errors.StorageFull: 6, errors.NotFound: 4, errors.WaitTimeout: 5,
        errors.UnknownKind: 2, errors.TooLarge: 2, errors.Conflict: 2, errors.CannotStart: 2, errors.TaskFailed: 1,
        errors.QueztlError: 70,
    }  # fmt: skip
    for kind in below(errors.QueztlError):
        if kind.__module__ != "mesh.errors":
            continue
        error = kind("m", "c-1", "failed", "r") if kind is errors.TaskFailed else kind()
        code = exit_codes.of_error(error)
        assert code in exit_codes.MEANINGS and code == expected.get(kind, code)
        document = exit_codes.error_document(error)["error"]
        assert document["exit_code"] == code and document["code"] == kind.code and document["message"]
    assert exit_codes.of_error(KeyboardInterrupt()) == 130
    assert exit_codes.of_error(FileNotFoundError()) == 2
    assert exit_codes.of_error(ZeroDivisionError()) == 70


def test_an_error_is_one_sentence_and_each_fault_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    faults = (Fault("payload.a", "is \x1b[31mred"), Fault("b", "is required"))
    Output(as_json=True, by_line=True).error(BadInput("It is not valid: payload.a is red; b is required.", faults))
    shown = capsys.readouterr()
    assert shown.err == "queztl: It is not valid:\n  payload.a: is �[31mred\n  b: is required\n"
    assert shown.out.count("\n") == 1 and '"exit_code":2' in shown.out
    sentence = exit_codes.sentence(ZeroDivisionError("x\ny"))
    assert sentence == "unexpected ZeroDivisionError: x y (run it with --debug to see where)"
    assert exit_codes.sentence(OSError(2, "No such file", "f")) == "f: No such file"
    full = OSError(28, "No space left on device")
    assert exit_codes.sentence(full) == "a file can't be read or written: No space left on device"


def test_a_saved_result_names_what_it_lost() -> None:
    info = {"kept": ["a"], "converted": ["audio: pcm to aac"], "dropped": ["location: for privacy", 7], "colour": "x"}
    assert results.changes(info) == ["converted: audio: pcm to aac", "dropped: location: for privacy"]
    assert results.changes({}) == results.changes({"dropped": "ignored"}) == []
