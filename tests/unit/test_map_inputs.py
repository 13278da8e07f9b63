"""What `queztl map` takes for its inputs, how it names outputs, and how names that are no text are shown."""

from __future__ import annotations

import ast
import base64
import io
import os
import socket
import sys
from contextlib import closing
from pathlib import Path, PurePath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli import main as cli
from api.cli.batch import journal as map_journal
from api.cli.batch.inputs import LEFT_OUT, explained, find_inputs
from api.cli.batch.journal import NAME, Journal
from api.cli.batch.names import MAX_STEM_BYTES, allot
from api.cli.batch.run import Job, Run, _Upload
from api.cli.commands.map import plan
from api.cli.output.exit_codes import error_document
from api.cli.output.formatting import as_text, json_bytes, name_fields
from mesh.errors import BadInput
from mesh.media_types import _TABLE, OCTETS, content_type, extension

ROOT = Path(__file__).parents[2]
#: Names as a file system may hold them: any bytes but "/" and NUL.
NAMES = st.binary(min_size=1, max_size=250).map(lambda raw: os.fsdecode(raw.replace(b"/", b"x").replace(b"\0", b"y")))
WORK = ("echo", "data", {})


# --- content types --------------------------------------------------------------------------------


def produced() -> set[str]:
    """Every content type that is spelled in the code of the kinds, and those of all image formats."""
    found = {f"image/{name}" for name in ("jpeg", "png", "webp", "avif", "tiff", "bmp")}
    for file in (ROOT / "node" / "workloads").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                top, slash, rest = node.value.partition("/")
                if slash and rest and top in ("image", "video", "audio", "application", "text", "model"):
                    found.add(node.value)
    return found


def test_every_content_type_that_a_kind_produces_has_an_extension_of_its_own() -> None:
    assert {"video/x-matroska", "video/mp4", "application/zip"} <= produced()
    assert not [name for name in produced() - {OCTETS} if extension(name) == ".bin"]
    assert extension("video/x-matroska") == ".mkv"


def test_the_table_of_the_machine_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import mimetypes

    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".mpv", "video/x-matroska")
    assert extension("video/x-matroska; codecs=avc1") == ".mkv"
    assert (extension(""), extension("x/odd"), content_type("A.MKV"), content_type("a")) == (
        ".json", ".bin", "video/x-matroska", OCTETS,
    )  # fmt: skip


def test_a_file_of_each_type_is_recognised_by_its_extension() -> None:
    assert {name: content_type(f"x{extension(name)}") for name in _TABLE} == {name: name for name in _TABLE}


# --- inputs ---------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with one of everything: two files count, and one below `inner`."""
    for name in ("a.dat", "b.dat", ".hidden", "inner/c.dat", "inner/.x", ".git/config"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    top = tmp_path / "in"
    (top / "dead").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "linked").symlink_to(tmp_path)
    (top / "to a file").symlink_to("a.dat")
    os.mkfifo(top / "pipe")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(top / "socket"))
    return top


def test_what_a_folder_holds_beside_files_is_counted(tree: Path) -> None:
    found = find_inputs([tree], tree.parent / "out")
    assert [PurePath(path).name for path in found.files] == ["a.dat", "b.dat", "to a file"]
    assert found.left_out == {"folders": 1, "linked_folders": 1, "dead_links": 2, "special": 2, "hidden": 2}
    text = explained(found.left_out)
    assert text.startswith("left out: 1 subfolder (--recursive takes its files), 1 link to a folder")
    assert "2 links to nothing" in text and "2 pipes, sockets or devices" in text
    assert explained(find_inputs([tree / "inner" / "c.dat"], tree).left_out) == ""


def test_subfolders_keep_their_tree_and_links_to_folders_are_not_followed(tree: Path) -> None:
    found = find_inputs([tree], tree.parent / "out", recursive=True)
    below = {os.path.relpath(path, tree): folder for path, folder in found.files.items()}
    assert below == {"a.dat": "", "b.dat": "", "to a file": "", "inner/c.dat": "inner"}
    assert found.left_out["folders"] == 0 and found.left_out["hidden"] == 3


def test_the_output_folder_and_the_outputs_of_other_runs_are_no_inputs(tree: Path) -> None:
    (tree / "out").mkdir()
    (tree / "out" / "mine.json").write_bytes(b"")
    other = Journal(tree / "inner")
    other.writing("x", "c.json")
    other.finished("x", "k", "c.json")
    other.finished("y", "k", "deep/d.json")
    other.close()
    (tree / "inner" / "c.json").write_bytes(b"")
    (tree / "inner" / "deep").mkdir()
    (tree / "inner" / "deep" / "d.json").write_bytes(b"")
    found = find_inputs([tree], tree / "out", recursive=True)
    assert str(tree / "inner" / "c.dat") in found.files
    assert not [path for path in found.files if path.endswith(".json")] and found.left_out["outputs"] == 2
    assert find_inputs([tree], tree / "out").left_out["folders"] == 1, "the output folder is not left out: it is known"
    named = find_inputs([tree / "inner" / "c.json"], tree / "out")
    assert list(named.files) == [str(tree / "inner" / "c.json")]


def test_a_file_that_can_not_be_used_is_named_with_the_reason(tree: Path) -> None:
    with pytest.raises(BadInput) as caught:
        find_inputs([tree / "pipe", tree / "dead", tree / "a.dat", tree / "none", tree / "loop"], tree / "out")
    problems = {PurePath(fault.field).name: fault.problem for fault in caught.value.faults}
    assert problems.keys() == {"pipe", "dead", "none", "loop"}
    assert (problems["pipe"], problems["dead"], problems["none"]) == (
        "is no regular file", "is a link to nothing", "does not exist",
    )  # fmt: skip


def test_every_reason_has_its_words() -> None:
    for reason in LEFT_OUT:
        found = find_inputs([], Path())
        found.left_out[reason] = 1
        one = explained(found.left_out)
        found.left_out[reason] = 2
        assert one != explained(found.left_out) and one.startswith("left out: 1 ")


async def test_an_input_that_changes_while_it_is_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"one")
    read = Path.read_bytes

    def read_and_grow(self: Path) -> bytes:
        data = read(self)
        self.write_bytes(b"one and more")
        return data

    # pyrefly: ignore[bad-argument-type]  reading a file uses neither mesh nor journal
    run = Run(None, None, tmp_path, Job("echo", "data", {}, {}), print, print)
    assert await run._data(path, _Upload()) == b"one"
    monkeypatch.setattr(Path, "read_bytes", read_and_grow)
    with pytest.raises(OSError, match="changed while it was read"):
        await run._data(path, _Upload())
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no regular file"):
        await run._data(tmp_path / "pipe", _Upload())


# --- outputs --------------------------------------------------------------------------------------


@given(st.dictionaries(NAMES.map(lambda name: f"/in/{name}"), st.sampled_from(["", "x", "x/y", "X"])))
def test_any_name_gets_an_output_of_its_own_in_its_folder(inputs: dict[str, str]) -> None:
    stems = allot(inputs, {}, ["x/output.json"])
    assert stems.keys() == inputs.keys() and len({stem.casefold() for stem in stems.values()}) == len(stems)
    for path, stem in stems.items():
        folder, name = os.path.split(stem)
        assert folder == inputs[path] and name and not name.startswith(".")
        assert len(os.fsencode(name)) <= MAX_STEM_BYTES + 8
        if os.fsencode(path).decode(errors="replace") == path:
            name.encode()  # a name that is UTF-8 stays so when it is cut


def test_an_output_that_somebody_put_there_keeps_its_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dat").write_bytes(b"1")
    out = tmp_path / "out"
    out.mkdir()
    found = find_inputs([tmp_path / "in"], out)
    [path] = found.files
    journal = Journal(out)
    assert plan(found, journal, out, WORK)[0][path][1] == "a"
    journal.close()
    (out / "a.json").write_bytes(b"another program's")
    journal = Journal(out)
    stem = plan(found, journal, out, WORK)[0][path][1]
    assert stem == "in-a"
    journal.writing(path, f"{stem}.json")
    journal.close()
    (out / f"{stem}.json").write_bytes(b"put in place, and then killed")
    journal = Journal(out)
    assert plan(found, journal, out, WORK)[0][path][1] == stem and f"{stem}.json" in journal.remembered.written
    journal.close()


def test_an_input_that_has_gone_is_tried_and_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    found = find_inputs([tmp_path / "a"], tmp_path / "out")
    (tmp_path / "a").unlink()
    (tmp_path / "out").mkdir()
    journal = Journal(tmp_path / "out")
    todo, skipped = plan(found, journal, tmp_path / "out", WORK)
    journal.close()
    assert list(todo) == [str(tmp_path / "a")] and skipped == 0


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "."])
def test_a_journal_leads_to_no_file_outside_its_folder(name: str) -> None:
    lines = [{"input": "a", "stem": name}, {"input": "a", "key": "k", "output": name}, {"input": "a", "writing": name}]
    assert map_journal.read("\n".join(json_bytes(line).decode() for line in lines)) == map_journal.Remembered()


# --- names that are no text -----------------------------------------------------------------------


@given(NAMES)
def test_documents_are_valid_json_and_hold_the_name_of_any_file(name: str) -> None:
    fields = msgspec.json.decode(json_bytes(name_fields("input", name)))
    raw = base64.b64decode(fields["input_base64"]) if "input_base64" in fields else fields["input"].encode()
    assert os.fsdecode(raw) == name
    error = msgspec.json.decode(json_bytes(error_document(FileNotFoundError(2, "No such file", name))))
    assert error["error"]["message"] == f"{as_text(name)}: No such file"


@given(NAMES | st.text())
def test_stdout_takes_every_text_and_a_name_as_its_own_bytes(name: str) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n")
    before, sys.stdout = sys.stdout, shown
    try:
        cli._accept_any_name()
    finally:
        sys.stdout = before
    shown.write(name)
    shown.flush()
    written = shown.buffer.getvalue()
    try:
        assert written == os.fsencode(name)
    except UnicodeEncodeError:  # another half of a character: no name of a file
        assert b"?" in written


def test_failures_have_a_name_that_no_output_takes(tmp_path: Path) -> None:
    """The first run, the second one, and one after a journal that gave the name away."""
    assert NAME.startswith(".")
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "failures.png"
    path.write_bytes(b"1")
    (out := tmp_path / "out").mkdir()
    found = find_inputs([path], out)
    for stems in ({}, {}, {str(path): "failures"}):
        journal = Journal(out)
        journal.name(stems)
        journal.close()
        journal = Journal(out)
        assert plan(found, journal, out, WORK)[0][str(path)][1] == "in-failures"
        journal.close()
