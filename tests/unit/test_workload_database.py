"""database_ops: TPC-H answers and formulas, checks that catch wrong ones, and the limits on SQL of peers."""

import datetime
import decimal
import json
import math
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mesh.errors import BadInput
from mesh.kinds.database_ops import least_streams
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads import database_ops
from node.workloads.database import sql_sandbox, tpch
from node.workloads.database.tpch_check import WrongAnswer, difference, expected_rows, missing_rows

ROOT = Path(__file__).resolve().parents[2]
QUERIES = range(1, 23)


@pytest.fixture
def run(tmp_path):
    def call(payload, closed=True, **more):
        folder = tmp_path / "task"
        folder.mkdir(exist_ok=True)
        (folder / "task.duckdb").unlink(missing_ok=True)
        return load("database_ops")(validate("database_ops", payload, closed), Context(2, folder, **more))

    return call


@pytest.fixture
def secret(tmp_path):
    """A folder outside the task's own, with a file in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret.csv").write_text("word\nxyzzy\n")
    duckdb.connect(str(folder / "other.duckdb")).close()
    return folder


# --- TPC-H -----------------------------------------------------------------------------------------


def test_all_22_answers_are_those_of_tpch_and_all_figures_are_in_the_result(run):
    updates = []
    result = run({"scale_factor": 0.01}, progress=lambda fraction, note="": updates.append((fraction, note)))
    assert [query["query"] for query in result["queries"]] == list(QUERIES)
    assert result["answers_checked"] == 22 and result["rows"]["lineitem"] == 60175
    assert result["streams"] == 2 and "not an audited result" in result["note"]
    assert math.isclose(result["throughput"], 2 * 22 * 3600 / result["streams_s"] * 0.01, rel_tol=0.01)
    assert math.isclose(result["composite"], math.sqrt(result["power"] * result["throughput"]), rel_tol=0.01)
    assert [fraction for fraction, _ in updates] == sorted(fraction for fraction, _ in updates)
    assert updates[-1] == (pytest.approx(1.0, abs=0.05), "throughput test")


def test_a_size_without_known_answers_says_that_nothing_was_checked(run):
    result = run({"scale_factor": 0.002, "queries": [6, 1]})
    assert [query["query"] for query in result["queries"]] == [6, 1]
    assert result["answers_checked"] == 0 and "power" not in result


def test_a_wrong_answer_is_never_returned(run, monkeypatch):
    real = tpch._load

    def load_and_spoil(connection, scale_factor, steps):
        seconds = real(connection, scale_factor, steps)
        connection.execute("UPDATE lineitem SET l_discount = l_discount + 0.01 WHERE l_orderkey = 1")
        return seconds

    monkeypatch.setattr(tpch, "_load", load_and_spoil)
    with pytest.raises(WrongAnswer, match="TPC-H query 1 is wrong: row"):
        run({"scale_factor": 0.01, "queries": [1]})


def test_incomplete_data_is_refused(run, monkeypatch):
    real = tpch._load
    monkeypatch.setattr(tpch, "_load", lambda c, *more: (real(c, *more), c.execute("DELETE FROM nation"))[0])
    with pytest.raises(WrongAnswer, match="nation has 0 rows, not 25"):
        run({"scale_factor": 0.01, "queries": [1]})
    whole = {"customer": 150, "orders": 1500, "part": 200, "partsupp": 800, "supplier": 10, "nation": 25, "region": 5}
    assert missing_rows(whole | {"lineitem": 6010}, 0.001) == ""
    assert "rows per order" in missing_rows(whole | {"lineitem": 7500}, 0.001)


def test_answers_are_compared_cell_by_cell():
    answer = "a|b|c|d\n1|2.50|x |1996-01-02\n||y|\n"
    rows = [(1, decimal.Decimal("2.5"), "x ", datetime.date(1996, 1, 2)), (None, None, "y", None)]
    assert difference(rows, expected_rows(answer)) == ""
    assert difference(rows[:1], expected_rows(answer)) == "1 rows, not 2"
    for column, wrong in ((0, 2), (1, 2.500001), (2, "x"), (3, datetime.date(1996, 1, 3))):
        spoilt = [*rows[0][:column], wrong, *rows[0][column + 1 :]]
        assert difference([spoilt, rows[1]], expected_rows(answer)).startswith("row 1 has"), column
    assert difference([(1.0 + 1e-12,)], [["1"]]) == "" and difference([(1,)], [["one"]]) != ""
    assert difference([(1,)], [["1", "2"]]) == "row 1 has 1 columns, not 2"


def test_power_and_throughput_are_those_of_the_specification():
    assert math.isclose(tpch.power_at_size([2.0] * 24, 1.0), 1800.0)
    assert math.isclose(tpch.power_at_size([1.0] * 12 + [4.0] * 12, 10.0), 18_000.0)
    # 1 us counts as a thousandth of the longest query: 10 ms.
    assert math.isclose(tpch.power_at_size([1e-6] * 23 + [10.0], 1.0), 3600 / (0.01 ** (23 / 24) * 10 ** (1 / 24)))
    assert tpch.throughput_at_size(2, 88.0, 1.0) == 1800.0
    assert [least_streams(size) for size in (0.1, 1, 2, 10)] == [2, 2, 3, 3]
    assert all(sorted(order) == list(QUERIES) for order in tpch.ORDERS) and len(set(tpch.ORDERS)) == 9


def test_refreshes_delete_as_many_orders_as_they_insert(tmp_path):
    connection = database_ops.connect(tmp_path, 2)
    connection.load_extension(str(tpch.extension_file(f"v{duckdb.__version__}")))
    connection.execute("CALL dbgen(sf=0.01)")
    before = tpch._counts(connection)
    refresh = tpch.Refresh(connection.cursor(), 0.01)
    refresh.insert(0)
    refresh.insert(1)
    during = tpch._counts(connection)
    # 15 orders, in whole blocks of eight.
    assert during["orders"] == before["orders"] + 2 * 16 - 1 and during["lineitem"] > before["lineitem"] + 32
    assert connection.execute("SELECT count(DISTINCT o_orderkey) FROM orders").fetchall()[0][0] == during["orders"]
    refresh.delete(1)
    refresh.delete(0)
    assert tpch._counts(connection) == before


def test_an_extension_of_another_version_is_unavailable():
    with pytest.raises(ImportError, match=r"no extension for DuckDB v9\.9\.9"):
        tpch.extension_file("v9.9.9")


def test_without_duckdb_the_kind_says_what_is_absent(tmp_path):
    script = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.worker_main import error_of\n"
        "from node.executor.context import Context, load\n"
        "try: load('database_ops')(validate('database_ops', {}), Context(1, Path('.')))\n"
        "except ImportError as error: print(error_of('database_ops', error).code, error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unavailable duckdb"


def test_wrong_payloads_are_named():
    for payload, field in (
        ({"scale_factor": 0}, "payload.scale_factor"),
        ({"scale_factor": 1e9}, "payload.scale_factor"),
        ({"scale_factor": "x'); DROP TABLE t"}, "payload.scale_factor"),
        ({"queries": [23]}, "payload.queries.0"),
        ({"queries": [1, 1]}, "payload.queries"),
        ({"tables": {"t": b"a\n1\n"}}, "payload.tables"),
        ({"sql": "SELECT 1", "tables": {'t"; --': b"a"}}, "payload.tables"),
        ({"benchmark": "tpcds"}, "payload.benchmark"),
    ):
        with pytest.raises(BadInput) as caught:
            validate("database_ops", payload, closed=True)
        assert [fault.field for fault in caught.value.faults] == [field]


# --- SQL of a peer ---------------------------------------------------------------------------------


def test_an_open_mesh_refuses_code_by_name_with_all_other_faults():
    with pytest.raises(BadInput) as caught:
        validate("database_ops", {"sql": "SELECT 1", "max_rows": 0})
    assert [fault.field for fault in caught.value.faults] == ["payload.sql", "payload.max_rows"]
    assert "has no key" in caught.value.message
    assert validate("database_ops", {"sql": None}).sql is None


def test_a_select_over_csv_and_parquet(run, tmp_path):
    duckdb.sql("SELECT 2 AS id, 'two' AS word UNION SELECT 3, 'drei'").write_parquet(str(tmp_path / "w.parquet"))
    tables = {"sales": b"id,price\n2,1.5\n3,2.25\n2,4\n", "words": (tmp_path / "w.parquet").read_bytes()}
    sql = "SELECT word, sum(price) AS total, count(*) AS n FROM sales JOIN words USING (id) GROUP BY word ORDER BY word"
    result = run({"sql": sql, "tables": tables})
    assert result["rows"] == [["drei", 2.25, 1], ["two", 5.5, 2]] and not result["more"]
    assert [column["name"] for column in result["columns"]] == ["word", "total", "n"]


def test_values_are_returned_as_plain_data(run):
    sql = (
        "SELECT 1::HUGEINT << 100 h, DATE '2020-01-02' d, TIME '01:02:03' t, 1.50 x, 'a'::BLOB b, {'k': [1, NULL]} s, "
        "'nan'::DOUBLE n, INTERVAL 1 DAY i, TRUE f"
    )
    (row,) = run({"sql": sql})["rows"]
    assert row[:5] == [str(1 << 100), "2020-01-02", "01:02:03", "1.50", "YQ=="]
    assert row[5:] == [{"k": [1, None]}, "nan", "1 day, 0:00:00", True]
    json.dumps(row, allow_nan=False)


def test_rows_over_the_limit_are_reported(run):
    result = run({"sql": "FROM range(10)", "max_rows": 3})
    assert result["rows"] == [[0], [1], [2]] and result["row_count"] == 3 and result["more"] is True


# fmt: off
HOSTILE = (
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')", "FROM '/etc/passwd'",
    "SELECT (SELECT count(*) FROM glob('/etc/*'))", "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM '{secret}/secret.csv'", "SELECT * FROM read_csv('{folder}/../elsewhere/secret.csv')",
    "FROM query('SELECT 1')", "FROM parquet_metadata('/etc/passwd')", "FROM sniff_csv('{secret}/secret.csv')",
    "COPY (SELECT 1) TO '{secret}/new.csv'", "COPY (SELECT 1) TO '{folder}/../elsewhere/new.csv'",
    "EXPORT DATABASE '{secret}/all'", "CREATE TABLE t AS SELECT 1", "INSERT INTO t VALUES (1)",
    "ATTACH '{secret}/other.duckdb' AS o", "ATTACH 'http://127.0.0.1:9/x.duckdb' AS o", "ATTACH ':memory:' AS m",
    "SELECT * FROM 'http://127.0.0.1:9/x.csv'", "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "INSTALL httpfs", "LOAD httpfs", "LOAD '{folder}/x.duckdb_extension'",
    "SET enable_external_access = true", "SET lock_configuration = false", "RESET allowed_directories",
    "PRAGMA enable_profiling = 'json'", "SET temp_directory = '{secret}'", "SET memory_limit = '100GB'",
    "CALL enable_logging(storage = 'file')", "SELECT * FROM enable_logging(storage = 'file')",
    "CREATE PERSISTENT SECRET s (TYPE s3)", "SELECT 1; ATTACH '{secret}/other.duckdb'", "EXPLAIN ANALYZE SELECT 1",
    "SELECT getenv('HOME')", "SELECT * FROM payload", "selekt", ";",
)
# fmt: on


@pytest.mark.parametrize("sql", HOSTILE)
def test_sql_that_leaves_the_sandbox_is_refused(run, secret, tmp_path, sql):
    before = sorted(secret.iterdir())
    with pytest.raises(InputFault) as caught:
        run({"sql": sql.format(secret=secret, folder=tmp_path / "task")})
    assert caught.value.field == "sql" and str(tmp_path / "task") not in caught.value.problem
    assert sorted(secret.iterdir()) == before


@pytest.mark.parametrize(
    "sql", [statement for statement in HOSTILE if any(mark in statement for mark in ("/", "SET", "LOAD", "INST"))]
)
def test_the_locked_connection_alone_refuses_it(secret, tmp_path, sql):
    """Without the check of the statement, the locked connection opens and writes nothing outside the folder."""
    folder = tmp_path / "task"
    folder.mkdir()
    connection = database_ops.connect(folder, 2)
    sql_sandbox.lock(connection, folder)
    before = sorted(secret.iterdir())
    with pytest.raises(duckdb.Error):
        connection.execute(sql.format(secret=secret, folder=folder)).fetchall()
    assert sorted(secret.iterdir()) == before


def test_no_python_object_is_a_table(run):
    payload = {"sql": "SELECT * FROM rows"}
    rows = duckdb.sql("SELECT 1")
    with pytest.raises(InputFault, match="rows does not exist"):
        run(payload)
    assert rows.fetchall() == [(1,)]


def test_damaged_tables_are_named(run, tmp_path):
    duckdb.sql("SELECT range AS a FROM range(10000)").write_parquet(str(tmp_path / "w.parquet"))
    whole = (tmp_path / "w.parquet").read_bytes()
    spoilt = whole[:200] + bytes(200) + whole[400:]
    for data in (whole[:-100], spoilt, whole[:4], b"PAR1" + b"\xff" * 100, b"", b"\x00\xff\xfe" * 50):
        with pytest.raises(InputFault) as caught:
            run({"sql": "SELECT sum(a) FROM t", "tables": {"t": data}})
        assert caught.value.field in ("tables.t", "sql"), data[:10]
    with pytest.raises(InputFault, match="which the mesh does not have"):
        run({"sql": "SELECT 1", "tables": {"t": {"blob": "b-gone"}}})


def test_a_query_that_needs_too_much_memory_is_a_memory_error(run, monkeypatch):
    monkeypatch.setattr(database_ops, "DUCKDB_MEMORY_MB", 50)
    monkeypatch.setattr(database_ops, "TEMP_MB", 10)
    with pytest.raises(MemoryError):
        run({"sql": "SELECT list(range) FROM range(50000000)"})
