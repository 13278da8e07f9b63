"""TPC-H in DuckDB: data from its `tpch` extension, 22 checked answers, power test and throughput test.

The formulas are those of the TPC-H specification (clauses 5.3 and 5.4). Every result lists the deviations from the
specification (`DEVIATIONS`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.database_ops import QUERIES, DatabaseOpsPayload
from node.executor.context import Context
from node.workloads.database.tpch_check import WrongAnswer, difference, expected_rows, missing_rows

if TYPE_CHECKING:
    import duckdb

NOTE = "TPC-H style: not an audited result"
DEVIATIONS = (
    "every stream uses the validation parameters, so that answers can be checked",
    "refresh orders are copies of existing ones under unused keys, and RF2 deletes them again",
    "no prices, no durability tests",
)
# fmt: off
#: The order of the queries in each stream (appendix A of the specification); the power test is stream 0.
ORDERS = (
    (14, 2, 9, 20, 6, 17, 18, 8, 21, 13, 3, 22, 16, 4, 11, 15, 1, 10, 19, 5, 7, 12),
    (21, 3, 18, 5, 11, 7, 6, 20, 17, 12, 16, 15, 13, 10, 2, 8, 14, 19, 9, 22, 1, 4),
    (6, 17, 14, 16, 19, 10, 9, 2, 15, 8, 5, 22, 12, 7, 13, 18, 1, 4, 20, 3, 11, 21),
    (8, 5, 4, 6, 17, 7, 1, 18, 22, 14, 9, 10, 15, 11, 20, 2, 21, 19, 13, 16, 12, 3),
    (5, 21, 14, 19, 15, 17, 12, 6, 4, 9, 8, 16, 11, 2, 10, 18, 1, 13, 7, 22, 3, 20),
    (21, 15, 4, 6, 7, 16, 19, 18, 14, 22, 11, 13, 3, 1, 2, 5, 8, 20, 12, 17, 10, 9),
    (10, 3, 15, 13, 6, 8, 9, 7, 4, 11, 22, 18, 12, 1, 5, 16, 2, 14, 19, 20, 17, 21),
    (18, 8, 20, 21, 2, 4, 22, 17, 1, 11, 9, 19, 3, 13, 5, 7, 10, 16, 6, 14, 15, 12),
    (19, 1, 15, 17, 5, 8, 9, 12, 14, 7, 4, 3, 20, 16, 6, 22, 10, 13, 2, 21, 18, 11),
)
# fmt: on


@dataclass
class Times:
    """The measured seconds."""

    load_s: float = 0.0
    queries: dict[int, float] = field(default_factory=dict)
    """Query -> its seconds in the checked run."""
    power: list[float] = field(default_factory=list)
    """RF1, 22 queries, RF2 of the power test."""
    streams_s: float = 0.0
    """The whole throughput test."""


def run(connection: duckdb.DuckDBPyConnection, payload: DatabaseOpsPayload, context: Context) -> dict[str, Any]:
    """Run the benchmark, and return note, scale_factor, load_s, rows, queries (each: query, seconds, rows, checked),
    answers_checked, queries_per_s, power, throughput, composite (QphH), streams, streams_s, cores, duckdb, deviations.

    Raises: WrongAnswer when an answer differs from TPC-H's, or the refreshes don't restore the data.
    """
    steps = _Steps(context, 2 + len(payload.queries) + (24 if len(payload.queries) == len(QUERIES) else 0))
    times = Times(load_s=_load(connection, payload.scale_factor, steps))
    rows = _counts(connection)
    if missing := missing_rows(rows, payload.scale_factor):
        raise WrongAnswer(f"the TPC-H data is incomplete: {missing}")
    texts = dict(connection.execute("SELECT query_nr, query FROM tpch_queries()").fetchall())
    queries = _checked_run(connection, payload, texts, times, steps)
    result: dict[str, Any] = {
        "benchmark": "tpch",
        "note": NOTE,
        "scale_factor": payload.scale_factor,
        "cores": context.cores,
        "duckdb": connection.execute("SELECT version()").fetchall()[0][0],
        "load_s": round(times.load_s, 3),
        "rows": rows,
        "queries": queries,
        "answers_checked": sum(query["checked"] for query in queries),
        "queries_per_s": round(len(queries) / sum(times.queries.values()), 3),
        "deviations": list(DEVIATIONS),
    }
    if len(payload.queries) == len(QUERIES):
        result |= _tests(connection, payload, texts, times, steps)
        if (after := _counts(connection)) != rows:
            raise WrongAnswer(f"the refreshes changed the number of rows from {rows} to {after}")
    return result


def _checked_run(
    connection: duckdb.DuckDBPyConnection,
    payload: DatabaseOpsPayload,
    texts: dict[int, str],
    times: Times,
    steps: _Steps,
) -> list[dict[str, Any]]:
    """Run each query once, and check its answer if TPC-H has one for the scale factor. Raises: WrongAnswer."""
    known = "SELECT query_nr, answer FROM tpch_answers() WHERE scale_factor = ?"
    answers = dict(connection.execute(known, [payload.scale_factor]).fetchall())
    queries = []
    for number in payload.queries:
        steps.begin(f"query {number}")
        started = time.perf_counter()
        found = connection.execute(texts[number]).fetchall()
        times.queries[number] = time.perf_counter() - started
        if number in answers and (wrong := difference(found, expected_rows(answers[number]))):
            raise WrongAnswer(f"the answer of TPC-H query {number} is wrong: {wrong}")
        seconds = round(times.queries[number], 6)
        queries.append({"query": number, "seconds": seconds, "rows": len(found), "checked": number in answers})
    return queries


def _tests(
    connection: duckdb.DuckDBPyConnection,
    payload: DatabaseOpsPayload,
    texts: dict[int, str],
    times: Times,
    steps: _Steps,
) -> dict[str, Any]:
    """Run the power test and, with streams, the throughput test."""
    size = payload.scale_factor
    refresh = Refresh(connection.cursor(), size)
    timed = [lambda: refresh.insert(0), *(_query(connection, texts[n]) for n in ORDERS[0]), lambda: refresh.delete(0)]
    for index, work in enumerate(timed):
        steps.begin(f"power test, {index + 1} of {len(timed)}")
        times.power.append(_seconds(work))
    power = power_at_size(times.power, size)
    result: dict[str, Any] = {"power": round(power, 1), "streams": payload.stream_count}
    if not payload.stream_count:
        return result
    steps.begin("throughput test")
    orders = ORDERS[1 : payload.stream_count + 1]
    cursors = [connection.cursor() for _ in orders]
    streams = [
        _stream([_query(cursor, texts[n]) for n in order]) for order, cursor in zip(orders, cursors, strict=True)
    ]
    refreshes = range(1, payload.stream_count + 1)
    streams.append(_stream([partial(work, pair) for pair in refreshes for work in (refresh.insert, refresh.delete)]))
    times.streams_s = _seconds(lambda: _run_concurrently(streams))
    throughput = throughput_at_size(payload.stream_count, times.streams_s, size)
    return result | {
        "streams_s": round(times.streams_s, 3),
        "throughput": round(throughput, 1),
        "composite": round(math.sqrt(power * throughput), 1),
    }


def power_at_size(seconds: Sequence[float], scale_factor: float) -> float:
    """TPC-H Power@Size: 3600 SF / the geometric mean of `seconds`, those of RF1, 22 queries and RF2.

    Following clause 5.4.1.4, no interval counts as less than a thousandth of the longest.
    """
    least = max(seconds) / 1000
    log_mean = math.fsum(math.log(max(interval, least)) for interval in seconds) / len(seconds)
    return 3600 * scale_factor / math.exp(log_mean)


def throughput_at_size(streams: int, seconds: float, scale_factor: float) -> float:
    """TPC-H Throughput@Size: queries per hour of `streams` concurrent streams that took `seconds`, times SF."""
    return streams * len(QUERIES) * 3600 / seconds * scale_factor


class Refresh:
    """The refresh functions RF1 and RF2: insert SF x 1500 orders with their lines, and delete them. Each pair of calls
    uses its own keys."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, scale_factor: float) -> None:
        self._cursor = cursor
        self._orders = max(1, round(1500 * scale_factor))

    def insert(self, pair: int) -> None:
        """RF1: copy orders to keys 8 higher, which are unused since dbgen uses the first 8 of every 32 keys."""
        first, last = self._keys(pair)
        for table, key in (("orders", "o_orderkey"), ("lineitem", "l_orderkey")):
            self._cursor.execute(
                f"INSERT INTO {table} SELECT * REPLACE ({key} + 8 AS {key}) FROM {table} "
                f"WHERE {key} BETWEEN {first} AND {last} AND {key} % 32 < 8"
            )

    def delete(self, pair: int) -> None:
        """RF2: delete the rows that `insert` added for the same pair."""
        first, last = self._keys(pair)
        for table, key in (("lineitem", "l_orderkey"), ("orders", "o_orderkey")):
            self._cursor.execute(
                f"DELETE FROM {table} WHERE {key} BETWEEN {first + 8} AND {last + 8} AND {key} % 32 >= 8"
            )

    def _keys(self, pair: int) -> tuple[int, int]:
        """(first, last) of the keys whose orders are copied; a block of 32 keys has 8 orders."""
        blocks = -(-self._orders // 8)
        return pair * blocks * 32, (pair + 1) * blocks * 32 - 1


class _Steps:
    """Reports progress in steps of about equal duration."""

    def __init__(self, context: Context, total: int) -> None:
        self._context, self._total, self._done = context, total, 0

    def begin(self, note: str) -> None:
        self._context.progress(min(1.0, self._done / self._total), note)
        self._done += 1

    def within(self, share: float, note: str) -> None:
        self._context.progress(min(1.0, (self._done + share - 1) / self._total), note)


def extension_file(version: str) -> Path:
    """The installed `tpch` extension for this version of DuckDB. Raises: ImportError when there is none."""
    spec = find_spec("duckdb_extension_tpch")
    if spec is None or spec.origin is None:
        raise ImportError("duckdb_extension_tpch is not installed")
    file = Path(spec.origin).parent / "extensions" / version / "tpch.duckdb_extension"
    if not file.is_file():
        raise ImportError(f"duckdb_extension_tpch has no extension for DuckDB {version}")
    return file


def _load(connection: duckdb.DuckDBPyConnection, scale_factor: float, steps: _Steps) -> float:
    """Generate the tables; returns the seconds."""
    started = time.perf_counter()
    steps.begin("generating the data")
    version = connection.execute("SELECT version()").fetchall()[0][0]
    connection.load_extension(str(extension_file(version)))
    parts = max(1, round(scale_factor * 10))
    for part in range(parts):
        steps.within(part / parts, f"generating the data, part {part + 1} of {parts}")
        more = f", children={parts}, step={part}" if parts > 1 else ""
        connection.execute(f"CALL dbgen(sf={scale_factor!r}{more})")
    return time.perf_counter() - started


def _counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
    return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in names}


def _query(cursor: duckdb.DuckDBPyConnection, text: str) -> Callable[[], object]:
    return lambda: cursor.execute(text).fetchall()


def _stream(works: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """A callable that runs all `works` in sequence."""
    return lambda: [work() for work in works]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run_concurrently(streams: Sequence[Callable[[], object]]) -> None:
    """Run each stream in a thread; DuckDB releases the GIL while it works. Raises: the first error of a stream."""
    errors: list[BaseException] = []

    def follow(stream: Callable[[], object]) -> None:
        try:
            stream()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=follow, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
