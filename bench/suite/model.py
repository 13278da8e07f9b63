"""What the suite knows of: benchmarks, their figures, and the outcome of one run. A JSON line is one `Outcome`."""

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
    """One number that a benchmark is about."""

    name: str
    unit: str
    path: tuple[str, ...]
    """Where it stands in the kind's result (or in the info of a result that is bytes); `ran_s` is the seconds that its
    worker took."""
    higher_is_better: bool = True
    scale: float = 1.0
    """The figure is the number times this."""
    amount: float = 0.0
    """Not 0: the figure is this much a second, and the number the seconds."""

    def of(self, number: float) -> float:
        """The figure, from the number in the result."""
        return self.amount / number if self.amount else self.scale * number


@dataclass(frozen=True)
class Part:
    """One workload on one fixed input; its first figure is the one by which repetitions are judged."""

    name: str
    kind: str
    payload: dict[str, Any]
    quick: dict[str, Any]
    """The same work, less of it."""
    figures: tuple[Figure, ...]
    quick_figures: tuple[Figure, ...] = ()
    """Instead of `figures`, where an amount differs."""
    make: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """The payload, from what is named above: for files that are made from a seed, not kept."""
    verify: Callable[[dict[str, Any], dict[str, Any]], str] = lambda payload, result: ""
    """Of a payload and its result: "" when the answer is right, else what is wrong with it."""

    def figures_of(self, quick: bool) -> tuple[Figure, ...]:
        """The figures of a quick run, or of a full one."""
        return (self.quick_figures or self.figures) if quick else self.figures


@dataclass(frozen=True)
class Benchmark:
    """One of the mission's eight: one part or several. The first part's first figure stands for it."""

    name: str
    title: str
    parts: tuple[Part, ...]

    @property
    def headline(self) -> Figure:
        """The figure that stands for it."""
        return self.parts[0].figures[0]


class Measured(msgspec.Struct, frozen=True):
    """One figure over all repetitions."""

    unit: str
    median: float
    low: float
    """Between `low` and `high` the true median lies, by a sign test."""
    high: float
    spread: float
    """(largest - smallest) / median."""
    samples: tuple[float, ...]
    higher_is_better: bool = True


class Conditions(msgspec.Struct, frozen=True):
    """What the machine was like."""

    load_before: float = 0.0
    """Cores in use by others before the run."""
    others: float = 0.0
    """Share of the machine's CPU that other processes had during the run."""
    stolen: float = 0.0
    """Share that its host took away during the run."""
    temperature_c: float | None = None
    mhz: float | None = None
    throttled: bool | None = None
    """None: this system does not tell."""
    memory_gb_s: tuple[float, ...] = ()
    """How fast its memory was before each repetition (`bench/suite/yardstick.py`); empty where it was not measured."""
    busy: str = ""
    """Why the figures are those of a busy machine; "" when they are not."""


class Outcome(msgspec.Struct, frozen=True):
    """One benchmark on one machine, once."""

    schema: int
    run: str
    """One for all benchmarks of a run."""
    benchmark: str
    state: State
    at: float
    """Unix seconds."""
    took_s: float
    reason: str = ""
    """Why there are no figures, or why no more repetitions were made."""
    figures: dict[str, Measured] = msgspec.field(default_factory=dict)
    headline: str = ""
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    """part -> what its kind was given."""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    """part -> what its last result says that is no figure (engine, device, residual …)."""
    node: str = ""
    cores: int = 0
    pinned: bool = False
    quick: bool = False
    conditions: Conditions = Conditions()
    machine: dict[str, Any] = msgspec.field(default_factory=dict)
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    commit: str = ""


class WrongSchema(ValueError):
    """That line was written by another version of the suite."""


_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(Outcome)


def to_line(outcome: Outcome) -> bytes:
    """One JSON line."""
    return _ENCODER.encode(outcome) + b"\n"


def from_line(line: bytes) -> Outcome:
    """Raises: WrongSchema, also for what is no outcome at all."""
    try:
        outcome = _DECODER.decode(line)
    except msgspec.MsgspecError as error:
        raise WrongSchema(f"no line of the suite: {error}") from None
    if outcome.schema != SCHEMA:
        raise WrongSchema(f"written with schema {outcome.schema}; this is schema {SCHEMA}")
    return outcome


@dataclass
class Progress:
    """How far a run is; what a terminal or an API shows."""

    total: int = 0
    done: int = 0
    benchmark: str = ""
    node: str = ""
    """Of a mesh; empty on this machine."""
    repetition: int = 0
    last: str = ""
    """The latest headline figure, in words."""
    outcomes: list[Outcome] = field(default_factory=list)
