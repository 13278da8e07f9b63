"""Which columns of a table are shown, and how wide each is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
#: A column that wraps is made this narrow before columns are left out, and never narrower than the second figure.
COMFORTABLE, MIN_WRAPPED = 24, 12


@dataclass(frozen=True)
class Column:
    """One column: `drop` says how early it is left out where the table is too wide (0: never, 1: first)."""

    name: str
    drop: int = 0
    wraps: bool = False
    """Whether its cells may take several lines; the widest of these columns gives way first."""
    right: bool = False
    """Whether its cells are aligned to the right: numbers."""
    is_state: bool = False
    """Whether a cell that is a state is coloured."""
    hide_empty: bool = False
    """Whether it is left out when no row has anything in it."""


def fit(columns: Sequence[Column], widths: Sequence[int], width: int | None) -> dict[int, int]:
    """index -> width of each column that is shown.

    `widths`: of the widest cell of each column, 0 when all its cells are empty; `width`: of the terminal, None for no
    limit. Columns that wrap are made narrower, the widest first; then columns are left out; then those that wrap are
    made as narrow as they can be.
    """
    shown = {
        index: max(cells, len(column.name))
        for index, (column, cells) in enumerate(zip(columns, widths, strict=True))
        if cells or not column.hide_empty
    }
    if width is None:
        return shown
    _narrow(columns, shown, width, COMFORTABLE)
    droppable = sorted((index for index in shown if columns[index].drop), key=lambda index: columns[index].drop)
    for index in droppable:
        if _total(shown) <= width:
            break
        del shown[index]
    _narrow(columns, shown, width, MIN_WRAPPED)
    return shown


def _narrow(columns: Sequence[Column], shown: dict[int, int], width: int, least: int) -> None:
    """Make columns that wrap narrower, the widest first, until the table fits or each has `least` or its name."""
    wrapping = [index for index in shown if columns[index].wraps]
    while wrapping and _total(shown) > width:
        widest = max(wrapping, key=lambda index: shown[index])
        if shown[widest] <= max(least, len(columns[widest].name)):
            break
        shown[widest] -= 1


def _total(shown: dict[int, int]) -> int:
    return sum(shown.values()) + GAP * (len(shown) - 1)
