"""Several passes over a suite made one: the minutes between them are in the spread of every figure. Pure.

A machine that others share, or that grows warm, is another one some minutes later, and samples of one minute don't show
it: two runs would then differ by more than either says. So a full run goes over all benchmarks twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.suite import repetition
from bench.suite.model import Conditions, Measured, Outcome


def merged(passes: Sequence[Outcome], missing: str = "") -> Outcome:
    """One outcome of a benchmark's passes, the earliest first; of one that did not end well, that one alone.

    `missing`: why there were not more. Raises: IndexError without any.
    """
    first, last = passes[0], passes[-1]
    for one in passes:
        if one.state != "ok":
            return msgspec.structs.replace(one, at=first.at, took_s=round(sum(each.took_s for each in passes), 3))
    reasons = [one.reason for one in passes] + ([missing] if missing else [])
    return msgspec.structs.replace(
        last,
        at=first.at,
        took_s=round(sum(one.took_s for one in passes), 3),
        reason=" | ".join(dict.fromkeys(reasons)),
        figures={name: _together([one.figures[name] for one in passes]) for name in first.figures},
        conditions=_worst([one.conditions for one in passes]),
    )


def _together(parts: Sequence[Measured]) -> Measured:
    if len(parts) == 1:
        return parts[0]
    samples = [sample for part in parts for sample in part.samples]
    return repetition.summary(samples, parts[0].unit, parts[0].higher_is_better)


def _worst(seen: Sequence[Conditions]) -> Conditions:
    """What can be said of all: the busiest, and whether any was throttled."""
    throttled = [one.throttled for one in seen if one.throttled is not None]
    return msgspec.structs.replace(
        seen[-1],
        load_before=max(one.load_before for one in seen),
        others=max(one.others for one in seen),
        stolen=max(one.stolen for one in seen),
        throttled=any(throttled) if throttled else None,
        memory_gb_s=tuple(sample for one in seen for sample in one.memory_gb_s),
        busy="; ".join(dict.fromkeys(one.busy for one in seen if one.busy)),
    )
