"""The values of the suite: benchmarks, their figures, and the outcome of one run. A JSON line is one `Outcome`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

#: Raised with every change of `Outcome` that a reader of older lines would misunderstand.
SCHEMA = 1

State = Literal["ok", "wrong answer", "missing library", "failed", "cancelled"]


@dataclass(frozen=True)
class Figure:
    """One number that a benchmark measures."""

    name: str
    unit: str
    path: tuple[str, ...]
    """Its place in the kind's result (or in the info of a result that is bytes); `ran_s`: the seconds in the worker."""
    higher_is_better: bool = True
    scale: float = 1.0
    """The figure is the number in the result times this."""
    amount: float = 0.0
    """If not 0: the figure is this amount per second, and the number in the result the seconds."""

    def of(self, number: float) -> float:
        """The figure, from the number in the result."""
        return self.amount / number if self.amount else self.scale * number


@dataclass(frozen=True)
class Part:
    """One workload on one fixed input; its first figure decides how often it is repeated."""

    name: str
    kind: str
    payload: dict[str, Any]
    quick: dict[str, Any]
    """Less of the same work."""
    figures: tuple[Figure, ...]
    quick_figures: tuple[Figure, ...] = ()
    """Used in the place of `figures` by a quick run, where an amount differs."""
    make: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Makes the payload from the one above: for files that are generated from a seed."""
    verify: Callable[[dict[str, Any], dict[str, Any]], str] = lambda payload, result: ""
    """(payload, result) -> what is wrong with the answer; "" when it is right."""

    def figures_of(self, quick: bool) -> tuple[Figure, ...]:
        """The figures of a quick run, or of a full one."""
        return (self.quick_figures or self.figures) if quick else self.figures


@dataclass(frozen=True)
class Benchmark:
    """One of the mission's eight workloads, in one part or several."""

    name: str
    title: str
    parts: tuple[Part, ...]

    @property
    def headline(self) -> Figure:
        """Its main figure: the first one of the first part."""
        return self.parts[0].figures[0]


class Measured(msgspec.Struct, frozen=True):
    """One figure over all repetitions."""

    unit: str
    median: float
    low: float
    """The true median lies between `low` and `high`, by a sign test."""
    high: float
    spread: float
    """(largest - smallest) / median."""
    samples: tuple[float, ...]
    higher_is_better: bool = True


class Conditions(msgspec.Struct, frozen=True):
    """The state of the machine during a run."""

    load_before: float = 0.0
    """Cores in use by others before the run."""
    others: float = 0.0
    """Share of the machine's CPU that other processes used during the run."""
    stolen: float = 0.0
    """Share of the CPU that its host took away during the run."""
    temperature_c: float | None = None
    mhz: float | None = None
    throttled: bool | None = None
    """None: the system does not report its clock."""
    memory_gb_s: tuple[float, ...] = ()
    """Speed of its memory before each repetition (`bench/suite/memory_speed.py`); empty where it was not measured."""
    busy: str = ""
    """Why the machine counts as busy; "" when it does not."""


class Outcome(msgspec.Struct, frozen=True):
    """One benchmark on one machine, in one run."""

    schema: int
    run: str
    """Name of the run, the same for all of its benchmarks."""
    benchmark: str
    state: State
    at: float
    """Unix seconds."""
    took_s: float
    reason: str = ""
    """Why there are no figures, or why the repetitions ended."""
    figures: dict[str, Measured] = msgspec.field(default_factory=dict)
    headline: str = ""
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    """part -> its payload."""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    """part -> the fields of its last result that are no figures (engine, device …)."""
    node: str = ""
    cores: int = 0
    quick: bool = False
    conditions: Conditions = Conditions()
    machine: dict[str, Any] = msgspec.field(default_factory=dict)
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    commit: str = ""


class WrongSchema(ValueError):
    """A line that was written by another version of the suite."""


_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(Outcome)


def to_line(outcome: Outcome) -> bytes:
    """The outcome as one JSON line."""
    return _ENCODER.encode(outcome) + b"\n"


def from_line(line: bytes) -> Outcome:
    """The outcome of a JSON line. Raises: WrongSchema, also for a line that is no outcome."""
    try:
        outcome = _DECODER.decode(line)
    except msgspec.MsgspecError as error:
        raise WrongSchema(f"not an outcome of the suite: {error}") from None
    if outcome.schema != SCHEMA:
        raise WrongSchema(f"written with schema {outcome.schema}; this is schema {SCHEMA}")
    return outcome


@dataclass
class Progress:
    """The progress of a run, for a terminal or an API."""

    total: int = 0
    done: int = 0
    benchmark: str = ""
    node: str = ""
    """The node of a mesh; empty on this machine."""
    repetition: int = 0
    last: str = ""
    """The latest headline figure, in words."""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
