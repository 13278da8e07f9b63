"""Reads a demand from a CSV file: the time in the first column, the load in the second. Pure.

Accepted: a header or none; commas, semicolons or tabs; ISO dates, Unix seconds or milliseconds, or plain seconds; rows
out of order, repeated or missing. A file that can't be read raises one sentence, with the line.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite

#: Fewest rows to train on and to score.
ROWS_LEAST = 200
#: Most steps of a trace, gaps filled.
STEPS_MOST = 200_000
_FORMATS = (
    "%Y-%m-%d %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%Y/%m/%d %H:%M:%S",
)


class TraceFault(ValueError):
    """A trace that can't be used; the message is one sentence that says why."""


@dataclass(frozen=True)
class Trace:
    """A demand: one load per step."""

    name: str
    begins_at: float
    """Time of the first step: Unix seconds, or plain seconds where the file has those"""
    step_s: float
    loads: tuple[float, ...]
    note: str = ""
    """What was repaired, in words"""


def read(name: str, text: str) -> Trace:
    """The trace in `text`, the content of the file `name`. Raises: TraceFault."""
    rows = _rows(name, text)
    if len(rows) < ROWS_LEAST:
        raise TraceFault(f"{name} has {len(rows)} rows, and a back-test needs {ROWS_LEAST}: give a longer trace")
    rows.sort(key=lambda row: row[0])
    steps = [later - earlier for (earlier, _), (later, _) in pairwise(rows) if later > earlier]
    if not steps:
        raise TraceFault(f"all rows of {name} have the same time: the first column must be the time of each row")
    step_s = statistics.median(steps)
    begins, size = rows[0][0], round((rows[-1][0] - rows[0][0]) / step_s) + 1
    if size > min(STEPS_MOST, 10 * len(rows)):
        raise TraceFault(
            f"{name} has {len(rows)} rows in {size} steps of {step_s:g} s: too many are missing to fill the gaps"
        )
    sums, counts = [0.0] * size, [0] * size
    for at, load in rows:
        slot = round((at - begins) / step_s)
        sums[slot] += load
        counts[slot] += 1
    loads: list[float] = []
    for total, count in zip(sums, counts, strict=True):
        loads.append(total / count if count else loads[-1])
    if not any(loads):
        raise TraceFault(f"the load in {name} is 0 in every row: there is nothing to scale for")
    missing = counts.count(0)
    note = f"{missing} of {size} steps were missing and are filled with the load before them" if missing else ""
    return Trace(name, begins, step_s, tuple(loads), note)


def _rows(name: str, text: str) -> list[tuple[float, float]]:
    lines = text.removeprefix("\ufeff").splitlines()
    if not any(line.strip() for line in lines):
        raise TraceFault(f"{name} is empty: it must hold a time and a load a line")
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    found: list[tuple[float, float]] = []
    header_passed = False
    for number, cells in enumerate(csv.reader(lines, delimiter=_delimiter(first)), 1):
        if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
            continue
        if len(cells) < 2:
            raise TraceFault(f"line {number} of {name} has one column: it must hold a time and a load")
        at, load = _time(cells[0]), _load(cells[1])
        if at is None or load is None:
            if not found and not header_passed:
                header_passed = True
                continue
            cell = f'time "{cells[0].strip()}"' if at is None else f'load "{cells[1].strip()}"'
            raise TraceFault(
                f"line {number} of {name}: the {cell} can't be read (a time, like 2026-01-31 08:05, and a load)"
            )
        found.append((at, load))
    return found


def _delimiter(line: str) -> str:
    """The separator of the columns: the most frequent of semicolon, tab and comma."""
    return max(";\t,", key=lambda sign: (line.count(sign), sign == ","))


def _time(text: str) -> float | None:
    """The time in seconds; None when `text` is no time. Times without a zone are UTC."""
    text = text.strip().strip('"')
    try:
        seconds = float(text)
        if not isfinite(seconds):
            return None
        return seconds / 1000.0 if abs(seconds) > 1e11 else seconds
    except ValueError:
        pass
    for parse in (datetime.fromisoformat, *(_parser(form) for form in _FORMATS)):
        try:
            found = parse(text)
        except ValueError:
            continue
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return None


def _parser(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)


def _load(text: str) -> float | None:
    """The load; None when `text` is no number, negative or not finite."""
    try:
        found = float(text.strip().strip('"').replace("\u00a0", "").replace(",", "."))
    except ValueError:
        return None
    return found if isfinite(found) and found >= 0 else None
