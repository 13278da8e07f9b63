"""What `queztl` prints for people: tables that fit the terminal, the details of a node, no broken lines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.commands import nodes, status, tasks
from api.cli.commands.kinds import show as show_kind
from api.cli.output.console import Output
from api.cli.output.formatting import age, ago, counted, plain
from api.cli.output.json_types import variants
from api.cli.output.table import GAP, MIN_WRAPPED, Column, fit
from mesh.kinds.table import KINDS
from mesh.messages import TaskEnd, TaskError
from mesh.tasks.status import failure, of_end
from mesh.views import TaskSummary

HOSTILE = "evil\x1b[2J\nname\r\t\x9b31m\u202e"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> int:
    """Standard output is a terminal of 80 columns."""
    monkeypatch.setattr("api.cli.output.console.terminal_width", lambda: 80)
    return 80


def node(name: str = "box", **changes: Any) -> dict[str, Any]:
    kinds = [{"kind": "echo", "available": True}, {"kind": "sql", "available": False, "reason": "no duckdb"}]
    facts = {"cores": 4, "memory_bytes": 8 << 30, "kinds": kinds, "accelerators": [{"type": "cuda", "name": "H200"}]}
    return {
        "id": "n12345678", "name": name, "state": "registered", "slots": 16, "running": 16, "queued": 128,
        "load": {"cpu_percent": 100.0, "memory_used_bytes": 8 << 30, "done": 1, "failed": 2, "rates": {}},
        "capabilities": facts, "labels": {"disk": "nvme"}, "region": "eu", "api": "http://10.0.0.1:8000",
        "host": "10.0.0.1", "hosts_bus": True, "master": False, "version": "0.1.0", "last_seen_s": 75.0,
    } | changes  # fmt: skip


# --- which columns are shown ----------------------------------------------------------------------

COLUMNS = st.builds(
    Column, st.text("abc", min_size=1, max_size=8), st.integers(0, 3), st.booleans(), hide_empty=st.booleans()
)


@given(st.lists(st.tuples(COLUMNS, st.integers(0, 60)), min_size=1, max_size=10), st.integers(1, 200))
def test_a_table_fits_or_has_given_way_as_far_as_it_can(made: list[tuple[Column, int]], width: int) -> None:
    columns, widths = [column for column, _ in made], [cells for _, cells in made]
    shown, natural = fit(columns, widths, width), fit(columns, widths, None)
    assert natural == {i: max(w, len(c.name)) for i, (c, w) in enumerate(made) if w or not c.hide_empty}
    assert set(shown) <= set(natural) and all(shown[index] <= natural[index] for index in shown)
    assert all(columns[index].wraps for index in shown if shown[index] < natural[index])
    assert all(columns[index].drop for index in natural if index not in shown)
    if sum(shown.values()) + GAP * (len(shown) - 1) > width:
        assert not any(columns[index].drop for index in shown)
        assert all(w <= max(MIN_WRAPPED, len(columns[i].name)) for i, w in shown.items() if columns[i].wraps)
    if sum(natural.values()) + GAP * (len(natural) - 1) <= width:
        assert shown == natural


def test_the_least_important_column_goes_first() -> None:
    columns = [Column("name"), Column("cpu", drop=2), Column("seen", drop=1), Column("why", wraps=True)]
    assert list(fit(columns, [10, 10, 10, 40], 200)) == [0, 1, 2, 3]
    assert fit(columns, [10, 10, 10, 40], 66) == {0: 10, 1: 10, 2: 10, 3: 30}
    assert fit(columns, [10, 10, 10, 40], 50) == {0: 10, 1: 10, 3: 24}
    assert fit(columns, [10, 10, 10, 40], 30) == {0: 10, 3: 18}


# --- nodes ----------------------------------------------------------------------------------------


def test_a_busy_node_is_one_line_of_80_columns(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(nodes.COLUMNS, [nodes.row(node("build-server", master=True)), nodes.row(node("b"))])
    head, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and all(len(line) <= terminal for line in (head, *rows)), rows
    assert head.split()[:6] == ["name", "id", "state", "slots", "queue", "cpu"]
    assert rows[0].split()[:5] == ["build-server", "*", "n12345678", "registered", "16/16"]


def test_a_pipe_gets_one_line_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(nodes.COLUMNS, [nodes.row(node("a" * 60)), nodes.row(node())])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line == line.rstrip() for line in lines)
    assert lines[0].endswith("seen") and lines[1].startswith("a" * 60) and lines[2].endswith("1 min")


def test_empty_columns_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(nodes.COLUMNS, [nodes.row(node(region="", capabilities={}, load={}))])
    head, row = capsys.readouterr().out.splitlines()
    assert "region" not in head and "gpu" not in head and row.split().count("-") == 3


def test_a_task_is_one_line_of_80_columns_unless_its_error_is_long(
    terminal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    running = TaskSummary(
        "cde668a3938-123456", "video_encode_h264", "running", 1, "n0123456789", 900.0, 950.0, progress=0.42
    )
    failed = TaskSummary("cde668a3938-2", "echo", "failed", 3, "n0123456789", error={"message": "it broke " * 40})
    Output().table(tasks.COLUMNS, [tasks.row(running, 1000.0)])
    head, row = capsys.readouterr().out.splitlines()
    assert max(len(head), len(row)) <= terminal and "42%" in row and "running" in row
    Output().table(tasks.COLUMNS, [tasks.row(running, 1000.0), tasks.row(failed, 1000.0)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= terminal and "cde668a3938-123456" in lines[1]


def test_one_node_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    nodes.show(node(), Output())
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert shown["memory"].endswith("8.0 GiB of 8.0 GiB in use") and shown["roles"].endswith("bus server")
    assert shown["accelerator"].endswith("cuda H200") and shown["sql"].endswith("no duckdb")
    assert shown["queue"].endswith("128 tasks fetched but not started")


def test_a_node_is_found_by_id_or_name() -> None:
    from mesh.errors import BadInput, NotFound

    listed = [node("a", id="n1"), node("b", id="n2"), node("b", id="n3")]
    assert nodes.find(listed, "n3")["id"] == "n3" and nodes.find(listed, "a")["id"] == "n1"
    with pytest.raises(BadInput, match="n2, n3"):
        nodes.find(listed, "b")
    with pytest.raises(NotFound):
        nodes.find(listed, "c")


def test_text_of_other_machines_never_breaks_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [{"kind": HOSTILE, "available": False, "reason": HOSTILE, "how_to_install": HOSTILE}]
    evil = node(HOSTILE, region=HOSTILE, labels={HOSTILE: HOSTILE}, capabilities={"kinds": kinds, "os": HOSTILE})
    out = Output()
    out.table(nodes.COLUMNS, [nodes.row(evil)])
    for sentence in nodes.missing([evil]):
        out.wrapped(sentence)
    out.line(HOSTILE)
    out.marked("fail", "FAIL ", HOSTILE)
    nodes.show(evil, out)
    end = TaskEnd(id="c1-1", kind="echo", state="failed", error=TaskError("x", HOSTILE, ((HOSTILE, HOSTILE),)))
    out.facts(status.facts(of_end(end), 0.0))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x9b" not in shown and "\r" not in shown and "\u202e" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("name") and line.strip() == "name"]
    assert shown.count("evil") > 8


# --- sentences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "sentence"),
    [
        ("failed", TaskError("crash", "It crashed."), "task c1-1 failed: It crashed."),
        ("failed", None, "task c1-1 failed"),
        ("cancelled", None, "task c1-1 was cancelled"),
        ("cancelled", TaskError("cancelled", "The task was cancelled."), "task c1-1 was cancelled"),
        ("expired", None, "task c1-1 expired: it was not started in time"),
    ],
)
def test_how_a_task_without_a_result_is_reported(state: str, error: TaskError | None, sentence: str) -> None:
    made = failure(TaskEnd(id="c1-1", kind="echo", state=state, error=error))
    assert (made.message, made.state, made.task_id) == (sentence, state, "c1-1") and made.reason


def test_counts_ages_and_plain_values() -> None:
    assert (counted(1, "task"), counted(0, "task"), counted(2, "node")) == ("1 task", "0 tasks", "2 nodes")
    assert [age(s) for s in (-1, 0, 0.4, 59, 60, 3600, 90_000)] == ["-", "0 s", "0 s", "59 s", "1 min", "1 h", "1 d"]
    assert (ago(0, 10), ago(5, 10), ago(11, 10)) == ("-", "5 s ago", "0 s ago")
    assert [plain(value) for value in (None, "a", 1.5, ["ü"])] == ["none", "a", "1.5", '["ü"]']


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_fits_80_columns(kind: str, terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_kind(KINDS[kind], Output())
    *lines, example = capsys.readouterr().out.splitlines()
    assert example.startswith(f"queztl submit {kind} '") and all(len(line) <= terminal for line in lines)


def test_many_forms_of_an_object_are_listed_apart() -> None:
    schema = KINDS["image_processing"].payload.model_json_schema()
    forms = variants(schema["properties"]["operations"], schema["$defs"])
    assert forms['op "crop"'] == ["width", "height", "x", "y"] and len(forms) > 10
    assert variants(schema["properties"]["image"], schema["$defs"]) == {}


def test_a_long_fact_is_wrapped_beside_its_name(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    Output().facts([("libraries", "numpy 2.4.6, " * 12), ("empty", ""), ("n", 0)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and all(len(line) <= terminal for line in lines) and lines[-1] == "n          0"
    assert all(line.startswith(" " * 11) for line in lines[1:-1])
