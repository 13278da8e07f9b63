"""Published figures of other machines, each with its source and condition, beside a figure of this one.

No bare ratios: every row says whether the two may be compared at all. *same condition*: same program, version and
input; *scaled*: comparable after the arithmetic that is told; *not comparable*: shown for orientation, with the reason,
and without a ratio. Figures of `references.json` were read in the named sources; none is measured here.
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
    """Which of the suite's figures it stands beside."""
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
    """How it is scaled, or why it can't be compared."""
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
        """ours / published; None where that would mean nothing."""
        if self.reference.relation == "not comparable" or not self.reference.scaled:
            return None
        return self.ours / self.reference.scaled


@cache
def references() -> tuple[Reference, ...]:
    """All of them."""
    text = resources.files("bench.suite").joinpath("references.json").read_bytes()
    return tuple(msgspec.json.decode(text, type=list[Reference]))


def beside(outcomes: Iterable[Outcome]) -> list[Row]:
    """A row for every published figure that stands beside a figure of these outcomes, comparable ones first."""
    order = {"same condition": 0, "scaled": 1, "not comparable": 2}
    rows = [
        Row(name, measured.unit, measured.median, reference)
        for outcome in outcomes
        for name, measured in outcome.figures.items()
        for reference in references()
        if reference.figure == name
    ]
    return sorted(rows, key=lambda row: (row.figure, order[row.reference.relation], -row.reference.scaled))
