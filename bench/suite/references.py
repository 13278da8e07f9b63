"""Published figures of other machines, with source and condition, beside the figures of this machine.

Every row says whether the two figures may be compared. *same condition*: same program, version and input; *scaled*:
comparable after the stated arithmetic; *not comparable*: shown for orientation, with the reason and without a ratio.
The figures in `references.json` are quoted from the named sources; none of them was measured here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from bench.suite.model import Outcome

Relation = Literal["same condition", "scaled", "not comparable"]


class Reference(msgspec.Struct, frozen=True):
    """One published figure."""

    figure: str
    """The suite's figure that it is compared with."""
    device: str
    value: float
    unit: str
    condition: str
    source: str
    year: int
    kind: str
    """measured, derived, distribution (a percentile of public results) or peak."""
    relation: Relation
    how: str
    """The arithmetic of the scaling, or why it can't be compared."""
    factor: float = 1.0
    inverse: bool = False

    @property
    def scaled(self) -> float:
        """The value in the unit of the suite's figure."""
        return self.factor / self.value if self.inverse else self.factor * self.value


@dataclass(frozen=True)
class Row:
    """This machine's figure beside a published one."""

    figure: str
    unit: str
    ours: float
    reference: Reference

    @property
    def ratio(self) -> float | None:
        """ours / published; None where the two can't be compared."""
        if self.reference.relation == "not comparable" or not self.reference.scaled:
            return None
        return self.ours / self.reference.scaled


@cache
def references() -> tuple[Reference, ...]:
    """All published figures."""
    text = resources.files("bench.suite").joinpath("references.json").read_bytes()
    return tuple(msgspec.json.decode(text, type=list[Reference]))


def beside(outcomes: Iterable[Outcome]) -> list[Row]:
    """One row for every published figure that has a counterpart in these outcomes, comparable ones first."""
    order = {"same condition": 0, "scaled": 1, "not comparable": 2}
    rows = [
        Row(name, measured.unit, measured.median, reference)
        for outcome in outcomes
        for name, measured in outcome.figures.items()
        for reference in references()
        if reference.figure == name
    ]
    return sorted(rows, key=lambda row: (row.figure, order[row.reference.relation], -row.reference.scaled))
