"""Runs an untrusted SELECT on the tables of its payload, behind two barriers.

First, the SQL must be a single SELECT (no ATTACH, COPY, SET, LOAD or CALL) that uses only the listed table functions;
`enable_logging` of DuckDB 1.5, for example, ends the process when its file can't be written. Second, DuckDB may open
only files in the task's folder, and its configuration is locked. The worker process (limits, no keys) is a third
barrier.
"""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from datetime import date
from datetime import time as clock_time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.database_ops import DatabaseOpsPayload
from node.executor.context import Context, InputFault
from node.workloads.common.machine_errors import machine_error

if TYPE_CHECKING:
    import duckdb

PARQUET = b"PAR1"
#: The allowed table functions.
TABLE_FUNCTIONS = ("generate_series", "range", "unnest")
REPORT_EVERY_S = 0.5
_MESSAGE_CHARS = 500


def run(connection: duckdb.DuckDBPyConnection, payload: DatabaseOpsPayload, context: Context) -> dict[str, Any]:
    """Run the SQL, and return columns (each: name, type), rows (at most max_rows), row_count, more (whether there are
    more rows), seconds and duckdb (its version).

    Decimals, dates and integers above 64 bits are returned as text, bytes as base64.

    Raises: InputFault for SQL that is invalid or not allowed, and for an unreadable table; MemoryError.
    """
    import duckdb

    assert payload.sql is not None
    only_select(connection, payload.sql)
    for name, data in payload.tables.items():
        _add_table(connection, name, context.read(data, f"tables.{name}"), context.folder)
    lock(connection, context.folder)
    started = time.perf_counter()
    try:
        cursor = _watched(connection, payload.sql, context)
        found = cursor.fetchmany(payload.max_rows + 1)
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(str(error)) from None
    except (duckdb.FatalException, duckdb.InternalException):
        raise  # an error of the engine, not of the SQL
    except (duckdb.Error, UnicodeDecodeError) as error:
        _raise_if_of_the_disk(error)
        raise InputFault("sql", f"failed: {_message(error, context.folder)}") from None
    rows = [[plain(value) for value in row] for row in found[: payload.max_rows]]
    return {
        "columns": [{"name": name, "type": str(kind)} for name, kind, *_ in cursor.description or ()],
        "rows": rows,
        "row_count": len(rows),
        "more": len(found) > len(rows),
        "seconds": round(time.perf_counter() - started, 6),
        "duckdb": duckdb.__version__,
    }


def only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raises: InputFault unless `sql` is exactly one SELECT that uses only TABLE_FUNCTIONS."""
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise InputFault("sql", f"is not valid: {str(error).splitlines()[0][:_MESSAGE_CHARS]}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        types = ", ".join(str(statement.type).rpartition(".")[2] for statement in statements) or "nothing"
        raise InputFault("sql", f"must be exactly one SELECT, not {types}")
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if tree["error"]:
        raise InputFault("sql", f"must be a SELECT: {tree.get('error_message', '')[:_MESSAGE_CHARS]}")
    if called := sorted(table_functions(tree) - set(TABLE_FUNCTIONS)):
        raise InputFault("sql", f"calls {', '.join(called)}; the only table functions are {', '.join(TABLE_FUNCTIONS)}")


def table_functions(tree: Any) -> set[str]:
    """The names of the table functions in a statement that DuckDB serialized."""
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "TABLE_FUNCTION":
                found.add(str(node["function"].get("function_name")).lower())
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found


def lock(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Restrict the connection to files in `folder`, irrevocably."""
    quoted = str(folder).replace("'", "''")
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET secret_directory = '{quoted}'")
    connection.execute("SET allow_persistent_secrets = false")
    connection.execute(f"SET allowed_directories = ['{quoted}']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _add_table(connection: duckdb.DuckDBPyConnection, name: str, data: bytes, folder: Path) -> None:
    """Load a file into a table, so that errors in the file are found here and not in the query. Raises: InputFault."""
    import duckdb

    form = "parquet" if data.startswith(PARQUET) else "csv"
    file = folder / f"{name}.{form}"
    file.write_bytes(data)
    try:
        quoted = str(file).replace("'", "''")
        connection.execute(f"CREATE TABLE \"{name}\" AS SELECT * FROM read_{form}('{quoted}')")
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(str(error)) from None
    except duckdb.Error as error:
        _raise_if_of_the_disk(error)
        problem = f"can't be read as {'Parquet' if form == 'parquet' else 'CSV'}: {_message(error, folder)}"
        raise InputFault(f"tables.{name}", problem) from None
    file.unlink()


def _watched(connection: duckdb.DuckDBPyConnection, sql: str, context: Context) -> duckdb.DuckDBPyConnection:
    """Run `sql` in a thread, and report its progress."""
    outcome: list[duckdb.DuckDBPyConnection | BaseException] = []

    def work() -> None:
        try:
            outcome.append(connection.execute(sql))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        thread.join(REPORT_EVERY_S)
        if thread.is_alive():
            context.progress(max(0.0, connection.query_progress()) / 100, "running")
    (ended,) = outcome
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _raise_if_of_the_disk(error: Exception) -> None:
    """Raises: OSError for a disk that is full or fails, which DuckDB reports like a file that can't be read."""
    import duckdb

    if isinstance(error, duckdb.IOException) and isinstance(problem := machine_error(error), OSError):
        raise problem from None


def _message(error: Exception, folder: Path) -> str:
    """The first line of DuckDB's message, without the paths of this node."""
    return str(error).splitlines()[0].replace(str(folder), "")[:_MESSAGE_CHARS]


def plain(value: Any) -> Any:
    """A DuckDB value as a type that JSON and MessagePack support."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (date, clock_time)):
        return value.isoformat()
    return value if value is None else str(value)
