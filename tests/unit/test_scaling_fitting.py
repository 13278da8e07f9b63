"""When a forecast is due, its inputs and validity; a mesh makes the same forecast as the back-test."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kinds.base import Resources
from mesh.leader.metrics import OPEN, Sample
from scaling.backtest import synthetic
from scaling.backtest.run import Backtest
from scaling.backtest.simulate import Scenario, default_offers
from scaling.backtest.tuning import Tuned
from scaling.domain.config import HYBRID, MODES, REACTIVE, ScalingConfig
from scaling.domain.model import Offer, Pool
from scaling.forecast import fitting
from scaling.forecast.capacity_target import CapacityTarget, plan_capacity
from scaling.forecast.child import fit
from scaling.forecast.fitting import IN_FORCE_STEPS, LATE_S, FitContext, FitRequest, FitResult, StoredFit
from scaling.forecast.gate import forecasts_by_origin
from scaling.forecast.history import HOLD_S, History
from scaling.observation.observe import PoolSnapshot

T0 = 1_800_000_000.0
CONFIG = ScalingConfig()
TARGET = fitting.capacity_target_of(CONFIG)
CONTEXT = FitContext(CONFIG, {"cpu": (2.0, 100.0), "cpu.eu": (2.0, 100.0)})
RESOURCES = {"echo": Resources(), "draw": Resources(gpu=1), "sum": Resources(cores="all")}


def history(minutes: int = 10, *kinds: str, pools: dict[str, float] | None = None) -> History:
    made = History()
    for number in range(1, minutes + 1):
        for kind in kinds or ("echo",):
            made.add(Sample(kind, T0 + 60 * number, 60.0, 120, 120, 120.0, pools=pools or {}), T0 + 60 * number)
    return made


def stored(target: CapacityTarget = TARGET, step_s: float = 60.0, **more: Any) -> StoredFit:
    known: dict[str, Any] = {"model": "last", "at_start": 3.0, "until_start": 4.0, "median": 2.0, "lower": 1.0}
    known |= {"upper": 2.5, "sure": 0.97, "trusted": True}
    return StoredFit(FitResult("cpu", 9, 0.5, "it won", **(known | more)), T0, step_s, target, T0 + 1)


def test_a_fit_is_due_with_each_step_and_not_before_there_is_something_new() -> None:
    made = history()
    first = fitting.due_fit(made, CONTEXT, None, T0 + 605)
    assert first is not None and first.within == (T0, T0 + 600, 60.0)
    assert fitting.due_fit(made, CONTEXT, first, T0 + 659) is None
    made.add(Sample("echo", T0 + 660, 60.0, 1, 1, 1.0), T0 + 660)
    second = fitting.due_fit(made, CONTEXT, first, T0 + 661)
    assert second is not None and second.within == (T0, T0 + 660, 60.0)
    for changed in (ScalingConfig(quantile=0.9), ScalingConfig(violation_nodes=50.0)):
        other = fitting.due_fit(made, FitContext(changed, CONTEXT.pools), second, T0 + 662)
        assert other is not None, "other settings need another forecast"
    assert fitting.due_fit(made, FitContext(ScalingConfig(mode=REACTIVE), CONTEXT.pools), None, T0 + 662) is None
    assert fitting.due_fit(History(), CONTEXT, None, T0) is None


def test_no_fit_is_due_for_a_history_that_ends_too_long_ago() -> None:
    made = history()
    made.add(Sample("echo", T0 + 99999, 60.0, 1, 1, 1.0), T0 + 3000)
    assert fitting.due_fit(made, CONTEXT, None, T0 + 3000) is None, "its newest step is too long ago"
    assert fitting.due_fit(history(), CONTEXT, None, T0 + 600 + HOLD_S + 60) is not None, (
        "steps without samples are new data"
    )


def test_a_request_of_a_pool_has_its_load_and_start_time_and_delays_count_as_start_time() -> None:
    made = history(10, "echo", "draw", "sum")
    context = FitContext(CONFIG, {"cpu": (2.0, 100.0), "cpu.eu": (2.0, 100.0), "gpu": (4.0, 400.0)})
    key = fitting.due_fit(made, context, None, T0 + 610)
    assert key is not None
    cpu, gpu = fitting.fit_requests(made, key, context, RESOURCES, 12.0, T0 + 610)
    # Two tasks a second of one second each: echo takes one slot of two, sum all of them, draw one of four.
    assert cpu.pool == "cpu" and cpu.loads == pytest.approx((3.0,) * 10)
    assert gpu.pool == "gpu" and gpu.loads == pytest.approx((0.5,) * 10)
    assert (cpu.start_steps, gpu.start_steps) == (3, 8), "100 + 10 + 12 s, and 400 + 10 + 12 s"
    assert cpu.prophet_s == 0, "minutes leave Prophet no time"


def test_work_with_requirements_counts_in_the_pool_of_its_lane_while_that_exists() -> None:
    made = history(10, "echo", pools={"p-eu": 0.5, "p-labels": 0.125, "p-gone": 0.125})
    groups = {("echo", OPEN): "cpu", ("echo", "p-eu"): "cpu.eu", ("echo", "p-labels"): ""}
    context = FitContext(CONFIG, {"cpu": (2.0, 100.0), "cpu.eu": (2.0, 100.0)}, groups)
    key = fitting.due_fit(made, context, None, T0 + 610)
    assert key is not None
    cpu, europe = fitting.fit_requests(made, key, context, RESOURCES, 12.0, T0 + 610)
    # Two tasks a second of one second each, on nodes of two slots.
    assert (cpu.pool, europe.pool) == ("cpu", "cpu.eu")
    assert cpu.loads == pytest.approx((0.25,) * 10) and europe.loads == pytest.approx((0.5,) * 10)


@given(st.floats(-100, 2000), st.sampled_from([60.0, 300.0]), st.sampled_from(MODES), st.booleans(), st.booleans())
def test_a_forecast_is_in_force_for_some_steps_and_is_shown_as_it_is_used(age_s, step_s, mode, same, has_model) -> None:
    context = FitContext(ScalingConfig(mode=mode), CONTEXT.pools)
    stored_fit = stored(
        fitting.capacity_target_of(context.config) if same else CapacityTarget(0.95, 50.0),
        step_s,
        model="last" if has_model else "",
    )
    used = fitting.current_forecasts({"cpu": stored_fit, "gone": stored_fit}, context, T0 + age_s)
    shown = fitting.document({"cpu": stored_fit}, context, history(), "", T0 + age_s)
    holds = mode != REACTIVE and same and has_model and age_s <= IN_FORCE_STEPS * step_s + LATE_S
    assert set(used) == ({"cpu"} if holds else set())
    assert set(shown) == {"cpu", "cpu.eu"} and all(entry["why"] for entry in shown.values())
    assert shown["cpu"]["in_force"] == shown["cpu"]["trusted"] == holds and not shown["cpu.eu"]["in_force"]
    if holds:
        assert (used["cpu"].at_start, used["cpu"].until_start, used["cpu"].median) == (3.0, 4.0, 2.0)
        assert used["cpu"].sure == shown["cpu"]["sure"] == 0.97 and shown["cpu"]["at_start"] == 3.0
        assert (shown["cpu"]["lower"], shown["cpu"]["upper"], shown["cpu"]["median"]) == (1.0, 2.5, 2.0)


def test_each_reason_for_having_no_forecast_is_given() -> None:
    def why(stored_fit: StoredFit | None, made: History, config: ScalingConfig = CONFIG, problem: str = "") -> str:
        context = FitContext(config, {"cpu": (1.0, 1.0)})
        return str(
            fitting.document({"cpu": stored_fit} if stored_fit else {}, context, made, problem, T0 + 900)["cpu"]["why"]
        )

    assert why(None, History()) == "there is no load history yet"
    assert why(None, history()) == "no forecast has been made yet"
    assert why(None, history(), problem="it broke") == "no forecast has been made yet; it broke"
    assert why(stored(), history()) == "the last forecast is too old: it knew the load until 900 s ago"
    assert why(stored(CapacityTarget(0.5), step_s=300.0), history()) == "the last forecast was made with other settings"
    assert why(stored(step_s=300.0, model=""), history()) == "it won"
    assert why(stored(step_s=300.0), history(), ScalingConfig(mode=REACTIVE)) == "the mode is reactive"


def test_the_slowest_suitable_offer_decides_the_start_time() -> None:
    offers = (Offer("a", "x", start_s=30.0), Offer("b", "x", start_s=90.0, has_gpu=True), Offer("c", "x", start_s=95.0))
    pools = (Pool("cpu", slots=3), Pool("gpu", slots=2, needs_gpu=True))
    snapshot = PoolSnapshot(pools, groups={("echo", OPEN): "cpu"})
    assert fitting.fit_context(snapshot, offers, CONFIG).pools == {"cpu": (3.0, 95.0), "gpu": (2.0, 90.0)}
    assert fitting.fit_context(snapshot, offers[:1], CONFIG).pools["gpu"] == (2.0, Offer("", "").start_s)
    assert fitting.fit_context(snapshot, offers, CONFIG).groups == snapshot.groups


@pytest.mark.parametrize("kind", ["pulses", "regime"])
@pytest.mark.parametrize("target", [CapacityTarget(0.95), Tuned(HYBRID, 0, forecast_level=21).capacity_target])
def test_the_forecast_of_a_mesh_is_the_last_row_of_the_back_test(kind: str, target: CapacityTarget) -> None:
    test = Backtest(synthetic.make(kind, 1, 1200), Scenario(300.0, default_offers(120.0)), 1)
    row = forecasts_by_origin(plan_capacity(test.forecasts, target), test.gate)[-1]
    made = fit(FitRequest("cpu", tuple(test.demand), 300.0, 1, target, 0.0))
    assert row is not None and made.model == row.model and made.steps == 1200
    assert made.trusted == row.trusted == (kind == "pulses") and made.ratio is not None
    ours, theirs = (
        (forecast.at_start, forecast.until_start, forecast.median, forecast.sure) for forecast in (made, row)
    )
    assert ours == pytest.approx(theirs)
    assert made.lower is not None and made.upper is not None and 0 <= made.lower <= made.median <= made.upper
    if target.violation_nodes:
        assert made.at_start == round(made.at_start) and made.at_start >= made.upper, "94 nodes buy more than 95 %"
    else:
        assert (made.at_start, made.sure) == (made.upper, 0.95)


def test_short_and_idle_histories_have_no_forecast() -> None:
    assert fit(FitRequest("cpu", (0.0,) * 500, 60.0, 1, CapacityTarget(0.95), 0.0)).why == "the history holds no load"
    short = fit(FitRequest("cpu", (1.0,) * 30, 60.0, 1, CapacityTarget(0.95), 0.0))
    assert not short.model and short.why == "30 steps of 60 s are too few for a model"
