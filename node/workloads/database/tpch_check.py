"""Checks that the TPC-H data is complete and its answers are correct (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

#: Relative tolerance of floating-point sums, which depend on the machine and on the number of threads.
RELATIVE = 1e-9
#: Rows at scale factor 1 (clause 4.2.5); lineitem has a random number, and FIXED_ROWS don't scale.
ROWS = {"customer": 150_000, "orders": 1_500_000, "part": 200_000, "partsupp": 800_000, "supplier": 10_000}
FIXED_ROWS = {"nation": 25, "region": 5}
#: Average lines of an order: uniformly 1 to 7.
LINES = 4.0


class WrongAnswer(RuntimeError):
    """The machine computed a wrong answer."""


def expected_rows(answer: str) -> list[list[str]]:
    """The rows of an answer of `tpch_answers()`: lines of cells separated by "|", after a line of names."""
    return [line.split("|") for line in answer.splitlines()[1:]]


def difference(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[str]]) -> str:
    """A description of the first difference; "" when there is none."""
    if len(found) != len(expected):
        return f"{len(found)} rows, not {len(expected)}"
    for index, (row, expected_row) in enumerate(zip(found, expected, strict=True)):
        if len(row) != len(expected_row):
            return f"row {index + 1} has {len(row)} columns, not {len(expected_row)}"
        for value, text in zip(row, expected_row, strict=True):
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
    """A description of the first table with a wrong number of rows for the scale factor; "" when there is none."""
    expected = {name: int(count * scale_factor) for name, count in ROWS.items()} | FIXED_ROWS
    for name, count in expected.items():
        if rows.get(name) != count:
            return f"{name} has {rows.get(name)} rows, not {count}"
    lines = rows.get("lineitem", 0) / max(1, expected["orders"])
    # With 1500 orders, the fewest, the mean is 4 with a standard deviation of 2 / sqrt(1500).
    return "" if abs(lines - LINES) < 0.3 else f"lineitem has {lines:.2f} rows per order, not {LINES:g}"
