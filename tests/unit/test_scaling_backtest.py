"""The back-test: trace formats, a document that anyone can recompute, one-sentence errors."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from scaling.__main__ import main
from scaling.backtest import synthetic, traces
from scaling.backtest.run import Backtest
from scaling.backtest.simulate import Scenario, default_offers, simulate
from scaling.backtest.tuning import FORECAST_LEVELS, ORACLE, POLICIES, PRICES, Tuned
from scaling.domain.config import HYBRID, PREDICTIVE, REACTIVE
from scaling.forecast import prophet

ROOT = Path(__file__).parents[2]


def rows(times: list[str], sign: str = ",", head: str = "") -> str:
    return head + "".join(f"{at}{sign}{number % 7 + 1}\n" for number, at in enumerate(times))


@pytest.mark.parametrize(
    "text",
    [
        rows([str(number * 60) for number in range(300)]),
        rows([str(1_700_000_000_000 + number * 60_000) for number in range(300)], head="t,v\n"),
        rows([f"2026-01-01T{n // 60:02}:{n % 60:02}:00Z" for n in range(300)], ";", "when;load\n"),
        rows([f"01.02.2026 {n // 60:02}:{n % 60:02}" for n in range(300)], "\t"),
        "\ufeff# made by hand\n\n" + rows([f"2026-01-01 {n // 60:02}:{n % 60:02}" for n in reversed(range(300))]),
    ],
)
def test_traces_are_read_in_common_formats(text):
    found = traces.read("t.csv", text)
    assert found.step_s == 60.0 and len(found.loads) == 300 and not found.note


def test_missing_rows_are_filled_and_noted():
    found = traces.read("t.csv", rows([str(n * 60) for n in range(300) if n not in (10, 11)]))
    assert len(found.loads) == 300 and found.loads[9] == found.loads[10] == found.loads[11]
    assert found.note == "2 of 300 steps were missing and are filled with the load before them"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n" + rows(["1", "2"]), "has 2 rows"),
        (rows(["1"] * 300), "same time"),
        (rows([str(n) for n in range(250)]) + "soon,3\n", 'line 251 of t.csv: the time "soon"'),
        (rows([str(n) for n in range(250)]) + "251,-3\n", 'load "-3"'),
        ("1\n2\n", "one column"),
        (rows([str(n) for n in range(250)] + ["900000"]), "too many are missing"),
        ("".join(f"{n},0\n" for n in range(300)), "0 in every row"),
    ],
)
def test_an_unreadable_trace_is_refused_in_one_sentence(text, message):
    with pytest.raises(traces.TraceFault, match=message.replace("(", r"\(")):
        traces.read("t.csv", text)


@pytest.mark.parametrize("path", ["no/such/file.csv", "."])
def test_the_command_says_what_is_wrong_without_a_traceback(path, capsys):
    assert main(["backtest", "--trace", path]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"backtest: {path} can't be read") and error.count("\n") == 1


@pytest.fixture(scope="module")
def pulses(tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("traces") / "pulses.csv"
    loads = synthetic.make("pulses", 7, 2600)
    file.write_text("time,load\n" + "".join(f"{n * 300},{load}\n" for n, load in enumerate(loads)))
    command = [sys.executable, "-m", "scaling", "backtest", "--trace", str(file), "--json", "--no-prophet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "settings of hybrid" in done.stderr  # progress
    return json.loads(done.stdout)


def test_anyone_can_recompute_the_document(pulses):
    assert set(pulses["policies"]) == set(POLICIES)
    demand, costs = pulses["demand"], {}
    assert len(demand) == pulses["steps_scored"] == 1040
    for policy, made in pulses["policies"].items():
        for which, steps in (("at_one_percent", made["steps"]), ("as_chosen", made["steps_as_chosen"])):
            ready = steps["ready"]
            under = [max(0.0, need - have) / need for need, have in zip(demand, ready, strict=True)]
            assert sum(steps["cost_usd"]) == pytest.approx(made[which]["cost_usd"])
            assert statistics.fmean(under) == pytest.approx(made[which]["under_provisioning"])
            violating = sum(need > have + 1e-9 for need, have in zip(demand, ready, strict=True)) / len(demand)
            assert violating == pytest.approx(made[which]["violating_share"])
            if which == "at_one_percent" and policy != ORACLE:
                assert violating <= 0.01
                costs[policy] = sum(steps["cost_usd"])
    assert pulses["hybrid_over_reactive"] == pytest.approx(costs[HYBRID] / costs[REACTIVE])


def test_prediction_pays_on_pulses_and_is_trusted_there(pulses):
    assert pulses["forecast_trusted_share"] > 0.9
    assert pulses["hybrid_over_reactive"] < 0.8
    assert any("Prophet was left out" in note for note in pulses["notes"])


def test_without_repetition_the_gate_stays_closed_and_hybrid_is_reactive():
    chance = np.random.default_rng(3)
    loads = 30 + np.cumsum(chance.normal(0, 0.4, 3000)).clip(-20, 60)
    test = Backtest(loads, Scenario(300.0, default_offers(120.0)), 1)
    found = test.gate
    assert found.trusted.mean() < 0.05
    assert "reactive at equal violations" in found.why(2999)
    fallback = Tuned(REACTIVE, 3, 3600.0)
    hybrid = Tuned(HYBRID, 3, 3600.0)
    costs = [sum(test.run(tuned, 1800, 3000, 1e9, 1e9).cost_usd) for tuned in (fallback, hybrid)]
    assert costs[1] == pytest.approx(costs[0], rel=0.05)


def test_the_document_has_the_settings_for_a_mesh(pulses):
    for policy, made in pulses["policies"].items():
        settings = made["as_chosen"]["settings"]
        assert settings["policy"] == policy and ("violation_nodes" in settings) == (policy in (PREDICTIVE, HYBRID))
    settings = pulses["policies"][HYBRID]["as_chosen"]["settings"]
    config = Tuned(**{tuned_field.name: settings[tuned_field.name] for tuned_field in fields(Tuned)}).config(300.0)
    assert (config.violation_nodes, config.forecast_headroom) == (
        settings["violation_nodes"],
        settings["forecast_headroom"],
    )


@pytest.mark.parametrize("level", [0, PRICES - 2, PRICES - 1, PRICES, FORECAST_LEVELS - 1])
def test_each_forecast_level_is_safer_than_the_one_before(level):
    level_settings = Tuned(HYBRID, 2, forecast_level=level)
    more, less = level_settings.safer(1), level_settings.safer(-1)
    safety = [
        (neighbour.capacity_target.violation_nodes, neighbour.forecast_headroom)
        for neighbour in (less, level_settings, more)
    ]
    assert safety == sorted(safety) and (safety[0] < safety[1]) == (level > 0)
    assert (safety[1] < safety[2]) == (level < FORECAST_LEVELS - 1)


def test_nodes_are_paid_from_launch_to_end_and_count_only_when_ready():
    scenario = Scenario(300.0, default_offers(120.0)[:1], fail_share=0.0)
    demand = [1.0] * 5 + [3.0] * 5 + [1.0] * 10
    done = simulate(demand, 1, len(demand), scenario, Tuned(REACTIVE, 0).config(300.0))
    assert done.ready[3:7] == [1, 1, 1, 3]  # seen in step 6, ordered for the beginning of step 7
    assert done.violating == 2
    assert done.node_h[4] * 60 == pytest.approx(5)
    assert done.node_h[5] * 60 == pytest.approx(5 + 2 * 2)  # two nodes, two minutes before they are ready
    assert done.ready[-1] == 1
    assert sum(done.cost_usd) == pytest.approx(sum(done.node_h) * scenario.offers[0].price_usd_h)


def test_failed_and_interrupted_nodes_cost_money_and_are_replaced():
    offers = tuple(offer for offer in default_offers(120.0) if offer.market == "spot")
    shaky = Scenario(300.0, tuple(o.__class__(**{**_facts(o), "interruptions_h": 0.2}) for o in offers), fail_share=0.2)
    done = simulate([8.0] * 400, 0, 400, shaky, Tuned(REACTIVE, 3, 3600.0).config(300.0))
    assert min(done.ready[20:]) < 10 and statistics.fmean(done.ready[20:]) > 8
    again = simulate([8.0] * 400, 0, 400, shaky, Tuned(REACTIVE, 3, 3600.0).config(300.0))
    assert again.ready == done.ready and again.cost_usd == done.cost_usd


def _facts(offer) -> dict:
    return {name: getattr(offer, name) for name in offer.__dataclass_fields__}


def test_without_prophet_the_other_models_are_used_and_the_problem_says_so(monkeypatch):
    monkeypatch.setattr(prophet.importlib.util, "find_spec", lambda name: None)
    found, problem = prophet.prophet_forecasts(np.ones(600), 300.0, (1, 2))
    assert "not installed" in problem and 'pip install "queztl[forecast]"' in problem
    assert all(np.isnan(forecasts).all() for forecasts in found.values())
