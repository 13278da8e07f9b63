"""No look-ahead: later loads never change an earlier forecast, gate or decision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.backtest import synthetic
from scaling.backtest.run import TRAINING, Backtest
from scaling.backtest.simulate import Scenario, default_offers
from scaling.backtest.tuning import Tuned
from scaling.domain.config import HYBRID, PREDICTIVE, REACTIVE
from scaling.forecast import walk_forward as walk_forward_module
from scaling.forecast.capacity_target import CapacityTarget, newsvendor_nodes, plan_capacity
from scaling.forecast.gate import delayed_max, gate
from scaling.forecast.models import models
from scaling.forecast.walk_forward import ERROR_FLOORS, horizons, pinball, upper_quantiles, walk_forward
from tests.examples import examples

STEP_S = 300.0
QUANTILES = (0.9, 0.99)
SERIES = st.builds(synthetic.make, st.sampled_from(sorted(synthetic.KINDS)), st.integers(0, 99), st.just(900))


def futures(loads: np.ndarray, cut: int, seed: int) -> np.ndarray:
    """A series with the same past and another future."""
    other = loads.copy()
    other[cut:] = np.random.default_rng(seed).uniform(0, 3 * loads.max() + 1, len(loads) - cut)
    return other


@settings(max_examples=examples(15))
@given(SERIES, st.integers(300, 899), st.integers(0, 9), st.integers(1, 3))
def test_the_future_changes_no_earlier_forecast_and_no_earlier_gate(loads, cut, seed, start_steps) -> None:
    other = futures(loads, cut, seed)
    known = slice(0, cut + 1)  # origins that know loads[:cut] at most
    for name, model in models(loads, STEP_S).items():
        np.testing.assert_array_equal(model(2)[known], models(other, STEP_S)[name](2)[known], err_msg=name)
    forecasts, other_forecasts = (
        walk_forward(series, STEP_S, start_steps, CapacityTarget(0.9, 50.0).quantiles()) for series in (loads, other)
    )
    for part in ("at_start", "until_start", "median", "in_force"):
        np.testing.assert_array_equal(
            getattr(forecasts, part)[known], getattr(other_forecasts, part)[known], err_msg=part
        )
    for target in (CapacityTarget(0.9), CapacityTarget(0.9, 50.0)):
        sizes = [plan_capacity(made, target) for made in (forecasts, other_forecasts)]
        for part in ("at_start", "until_start", "sure"):
            before, after = (getattr(plan, part)[known] for plan in sizes)
            np.testing.assert_array_equal(before, after, err_msg=part)
        first, second = (gate(series, size, STEP_S) for series, size in zip((loads, other), sizes, strict=True))
        np.testing.assert_array_equal(first.trusted[known], second.trusted[known])
        np.testing.assert_array_equal(first.ratio[known], second.ratio[known])


@settings(max_examples=examples(8))
@given(SERIES, st.integers(560, 890), st.sampled_from([REACTIVE, PREDICTIVE, HYBRID]), st.integers(0, 9))
def test_the_future_changes_no_earlier_decision(loads, cut, policy, seed) -> None:
    assert cut > 900 * TRAINING
    tuned = Tuned(policy, 3, 3600.0, forecast_level=20)
    runs = []
    for test_loads in (loads, futures(loads, cut, seed)):
        test = Backtest(test_loads, Scenario(STEP_S, default_offers(120.0)), 1)
        runs.append(test.run(tuned, 400, 900, float("inf"), float("inf"), keep=True))
    known = cut - 400 + 1  # the decision at step `cut` sees demand[:cut]
    assert runs[0].decisions[:known] == runs[1].decisions[:known]
    assert runs[0].ready[: known - 1] == runs[1].ready[: known - 1]
    assert all(decision.trail for decision in runs[0].decisions)


@settings(max_examples=examples(10))
@given(st.integers(0, 99), st.sampled_from(ERROR_FLOORS))
def test_upper_quantiles_cover_their_share(seed, floor) -> None:
    chance = np.random.default_rng(seed)
    loads = 50 + chance.normal(0, 5, 3000)
    made = upper_quantiles(loads, np.full(3001, 50.0), 2, QUANTILES, 1000, 0, floor)
    for column, quantile in enumerate(QUANTILES):
        forecast = made[1000:2998, column]
        assert np.mean(loads[1001:2999] > forecast) == pytest.approx(1 - quantile, abs=0.025)


@settings(max_examples=examples(10))
@given(st.integers(0, 99), st.integers(0, 11))
def test_quantiles_by_phase_cover_their_share_in_each_phase(seed, phase) -> None:
    """One step of twelve is noisy, the others are quiet."""
    chance = np.random.default_rng(seed)
    at = np.arange(6000) % 12
    loads = 50 + chance.normal(0, 1, 6000) * np.where(at == 5, 9.0, 0.5)
    made = upper_quantiles(loads, np.full(6001, 50.0), 2, (0.9,), 4032, 0, 0.05, phases=12)
    origins = np.arange(4000, 5998)
    origins = origins[(origins + 1) % 12 == phase]
    assert np.mean(loads[origins + 1] > made[origins, 0]) == pytest.approx(0.1, abs=0.1)
    assert np.ptp(made[origins, 0]) < 9, "a phase never gets the quantiles of another"
    assert (made[origins, 0] > 53).all() == (phase == 5)


LOADS = st.lists(st.floats(0, 50), min_size=3, max_size=3).map(sorted)


@given(LOADS, st.floats(0, 500), st.floats(1, 500))
def test_no_other_number_of_nodes_costs_less_including_violations(levels, price, more) -> None:
    quantiles = (0.5, 0.9, 0.99)
    (nodes,), (sure,) = newsvendor_nodes(np.array([levels]), quantiles, price)
    assert nodes == round(nodes) and quantiles[0] <= sure <= quantiles[-1]
    for other in range(int(np.ceil(levels[0])), int(np.ceil(levels[-1])) + 2):
        enough = float(np.interp(other, levels, quantiles))
        assert nodes + price * (1 - sure) <= other + price * (1 - enough) + 1e-6
    (dearer,), _ = newsvendor_nodes(np.array([levels]), quantiles, price + more)
    assert dearer >= nodes, "a higher price of violations holds more nodes"


def test_without_a_quantile_the_number_of_nodes_is_nan() -> None:
    nodes, sure = newsvendor_nodes(np.array([[1.0, np.nan], [1.0, 2.0], [2.0, 1.0]]), (0.5, 0.9), 100.0)
    assert np.isnan(nodes).tolist() == np.isnan(sure).tolist() == [True, False, False]
    assert nodes[1:].tolist() == [2.0, 2.0], "quantiles that cross are taken in their order"


def test_quiet_hours_between_peaks_are_not_sized_by_the_errors_of_the_peaks(monkeypatch) -> None:
    """One busy step in twelve is hard to forecast; the steps between are almost constant."""
    chance = np.random.default_rng(1)
    phase = np.arange(4000) % 12
    loads = np.where(phase == 5, chance.uniform(15, 27, 4000), 8 + chance.normal(0, 0.03, 4000))
    held = []
    monkeypatch.setattr(walk_forward_module, "PHASE_LEAST", 10**9)
    for floors in ((0.05,), ERROR_FLOORS):
        monkeypatch.setattr(walk_forward_module, "ERROR_FLOORS", floors)
        made = walk_forward(loads, 300.0, 1, [0.975]).at_start[2000:, 0]
        target = np.arange(2000, 4001) + 1  # the step that origin t is about
        quiet = (target < 4000) & (target % 12 < 4)
        assert np.mean(loads[target[quiet]] > made[quiet]) < 0.05
        held.append(made[quiet].mean() - 8)
    assert held[1] < 0.8 * held[0]


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.5, 0.999))
def test_pinball_loss_is_zero_at_the_truth_and_higher_below_for_upper_quantiles(actual, off, quantile) -> None:
    loss = [float(pinball(np.array([actual]), np.array([actual + by]), quantile)[0]) for by in (0.0, off, -off)]
    assert loss[0] == 0.0 and 0.0 <= loss[1] <= loss[2] + 1e-9


def test_delayed_max_is_the_capacity_of_a_slow_reaction() -> None:
    loads = np.array([1.0, 5.0, 2.0, 3.0, 0.0, 9.0])
    assert delayed_max(loads, 2, 0).tolist() == [1, 1, 1, 5, 2, 3]
    assert delayed_max(loads, 2, 1).tolist() == [1, 1, 1, 5, 5, 3]


@pytest.mark.parametrize(("start", "found"), [(1, (1, 2)), (2, (1, 2, 3)), (12, (1, 5, 9, 13))])
def test_horizons_reach_from_the_next_step_to_the_one_after_a_start(start, found) -> None:
    assert horizons(start) == found
