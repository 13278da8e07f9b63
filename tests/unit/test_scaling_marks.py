"""The mark of the back-test on a series of the shared reading, where that lies beside this checkout."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest

from scaling.backtest import traces
from scaling.backtest.run import Backtest
from scaling.backtest.simulate import World, default_offers
from scaling.backtest.tuning import POLICIES
from scaling.config import HYBRID, REACTIVE

TRACES = Path(__file__).parents[3] / "shared" / "traces"


def test_the_shared_taxi_trace_keeps_its_mark():
    file = TRACES / "nab_nyc_taxi_30min.csv"
    if not file.exists():
        pytest.skip("the shared traces are not beside this checkout")
    trace = traces.read(file.name, file.read_text())
    test = Backtest(
        trace.loads, World(trace.step_s, default_offers(120.0), begins_at=trace.begins_at), ceil(120 / trace.step_s)
    )
    tuned = test.tuned()
    scored = test.scored({policy: tuned[policy] for policy in POLICIES})
    equal = {policy: sum(scored[policy][1].run.cost_usd) for policy in (HYBRID, REACTIVE)}
    assert equal[HYBRID] / equal[REACTIVE] <= 0.85
