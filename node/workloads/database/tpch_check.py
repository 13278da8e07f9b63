"""Whether TPC-H's data is whole and its answers are right (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

#: Sums of floating point numbers come out in an order of their own on every machine and number of threads.
RELATIVE = 1e-9
#: Rows a scale factor of 1 has (clause 4.2.5); lineitem is random, and two tables never grow.
ROWS = {"customer": 150_000, "orders": 1_500_000, "part": 200_000, "partsupp": 800_000, "supplier": 10_000}
FIXED_ROWS = {"nation": 25, "region": 5}
#: Lines an order has on average: 1 to 7, evenly.
LINES = 4.0


class WrongAnswer(RuntimeError):
    """The machine computed something that is not so."""


def expected_rows(answer: str) -> list[list[str]]:
    """The rows of an answer as `tpch_answers()` gives it: lines of cells between "|", after one of names."""
    return [line.split("|") for line in answer.splitlines()[1:]]


def difference(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[str]]) -> str:
    """Where `found` is not `expected`, in words; "" when they are the same."""
    if len(found) != len(expected):
        return f"{len(found)} rows, not {len(expected)}"
    for index, (row, wanted) in enumerate(zip(found, expected, strict=True)):
        if len(row) != len(wanted):
            return f"row {index + 1} has {len(row)} columns, not {len(wanted)}"
        for value, text in zip(row, wanted, strict=True):
            if not _same(value, text):
                return f"row {index + 1} has {value!s:.60}, not {text:.60}"
    return ""


def _same(value: Any, text: str) -> bool:
    if value is None:
        return text in ("", "NULL")
    if isinstance(value, (int, float, Decimal)):
        try:
            return math.isclose(value, float(text), rel_tol=RELATIVE)
        except ValueError:
            return False
    return str(value) == text


def missing_rows(rows: Mapping[str, int], scale_factor: float) -> str:
    """What a database of that scale factor lacks, in words; "" when each table has the rows it must have."""
    wanted = {name: int(count * scale_factor) for name, count in ROWS.items()} | FIXED_ROWS
    for name, count in wanted.items():
        if rows.get(name) != count:
            return f"{name} has {rows.get(name)} rows, not {count}"
    lines = rows.get("lineitem", 0) / max(1, wanted["orders"])
    # 1500 orders are the fewest: their mean is 4 with a standard deviation of 2 / sqrt(1500).
    return "" if abs(lines - LINES) < 0.3 else f"lineitem has {lines:.2f} rows an order, not {LINES:g}"
