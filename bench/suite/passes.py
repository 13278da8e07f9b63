"""Merges several passes over the suite, so that every figure's spread includes changes over minutes. Pure.

A shared machine, or one that warms up, changes over minutes, and samples of one minute don't show that: two runs would
differ by more than the spread of either. So a full run goes over all benchmarks twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.suite import repetition
from bench.suite.model import Conditions, Measured, Outcome


def merged(passes: Sequence[Outcome], missing: str = "") -> Outcome:
    """One outcome for a benchmark's passes, given in order; the first outcome that is not ok, if there is one.

    `missing`: why there were fewer passes than planned. Raises: IndexError without passes.
    """
    first, last = passes[0], passes[-1]
    took_s = round(sum(outcome.took_s for outcome in passes), 3)
    for outcome in passes:
        if outcome.state != "ok":
            return msgspec.structs.replace(outcome, at=first.at, took_s=took_s)
    reasons = [outcome.reason for outcome in passes] + ([missing] if missing else [])
    return msgspec.structs.replace(
        last,
        at=first.at,
        took_s=took_s,
        reason=" | ".join(dict.fromkeys(reasons)),
        figures={name: _together([outcome.figures[name] for outcome in passes]) for name in first.figures},
        conditions=_worst([outcome.conditions for outcome in passes]),
    )


def _together(parts: Sequence[Measured]) -> Measured:
    if len(parts) == 1:
        return parts[0]
    samples = [sample for part in parts for sample in part.samples]
    return repetition.summary(samples, parts[0].unit, parts[0].higher_is_better)


def _worst(conditions: Sequence[Conditions]) -> Conditions:
    """The highest loads of all passes, and whether the machine throttled in any."""
    throttled = [each.throttled for each in conditions if each.throttled is not None]
    return msgspec.structs.replace(
        conditions[-1],
        load_before=max(each.load_before for each in conditions),
        others=max(each.others for each in conditions),
        stolen=max(each.stolen for each in conditions),
        throttled=any(throttled) if throttled else None,
        memory_gb_s=tuple(sample for each in conditions for sample in each.memory_gb_s),
        busy="; ".join(dict.fromkeys(each.busy for each in conditions if each.busy)),
    )
