"""The targets of the back-test on the shared traces, where those lie beside this checkout."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest

from scaling.backtest import traces
from scaling.backtest.run import Backtest
from scaling.backtest.simulate import Scenario, default_offers
from scaling.backtest.tuning import POLICIES
from scaling.domain.config import HYBRID, REACTIVE

TRACES = Path(__file__).parents[3] / "shared" / "traces"


@pytest.mark.parametrize(("name", "mark"), [("nab_nyc_taxi_30min.csv", 0.85), ("nab_asg_cpu_5min.csv", 0.6)])
def test_a_shared_trace_meets_its_target(name: str, mark: float):
    """The cost of the hybrid policy over that of the best reactive one, for a daily pattern and for hourly pulses."""
    file = TRACES / name
    if not file.exists():
        pytest.skip("the shared traces are not beside this checkout")
    trace = traces.read(file.name, file.read_text())
    test = Backtest(
        trace.loads, Scenario(trace.step_s, default_offers(120.0), begins_at=trace.begins_at), ceil(120 / trace.step_s)
    )
    tuned = test.tuned()
    scored = test.scored({policy: tuned[policy] for policy in POLICIES})
    equal = {policy: sum(scored[policy][1].run.cost_usd) for policy in (HYBRID, REACTIVE)}
    assert equal[HYBRID] / equal[REACTIVE] <= mark
