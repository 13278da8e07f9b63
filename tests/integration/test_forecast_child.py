"""Forecasts that a child process makes: it loads Prophet, answers line by line, and ends when its time is over."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from scaling.backtest import synthetic
from scaling.forecast import prophet
from scaling.forecast.capacity_target import CapacityTarget
from scaling.forecast.child import fit
from scaling.forecast.fitting import FitRequest, FitResult


@pytest.mark.skipif(bool(prophet.lacking()), reason="Prophet is not installed")
def test_prophet_is_one_more_model_and_its_timeout_is_reported() -> None:
    loads = tuple(synthetic.make("pulses", 1, 1200).tolist())
    assert "Prophet took longer than 0.01 s" in fit(FitRequest("cpu", loads, 300.0, 1, CapacityTarget(0.95), 0.01)).why
    assert "Prophet" not in fit(FitRequest("cpu", loads, 300.0, 1, CapacityTarget(0.95), 60.0)).why


def test_the_child_answers_line_by_line_and_ends_itself_after_its_time() -> None:
    command = [sys.executable, "-P", "-m", "scaling.forecast.child"]
    requests = [FitRequest(pool, (1.0, 2.0) * 200, 60.0, 1, CapacityTarget(0.9), 0.0) for pool in ("cpu", "gpu")]
    lines = b"".join(msgspec.json.encode(request) + b"\n" for request in requests)
    environment = prophet.child_environment()
    done = subprocess.run([*command, "60"], input=lines, env=environment, capture_output=True, check=True)
    found = [msgspec.json.decode(line, type=FitResult) for line in done.stdout.splitlines()]
    assert [fitted.pool for fitted in found] == ["cpu", "gpu"] and all(fitted.model for fitted in found)
    with subprocess.Popen([*command, "0.2"], stdin=subprocess.PIPE, env=environment) as waits:
        assert waits.wait(30) < 0, "its parent sends nothing and stays alive, and its time is over"


def test_prophet_is_fitted_in_a_child_process_and_stopped_when_it_takes_too_long():
    if prophet.lacking():
        pytest.skip(prophet.lacking())
    at = np.arange(1200)
    loads = 50 + 30 * np.sin(2 * np.pi * at / 288) + np.random.default_rng(1).normal(0, 2, 1200)
    found, problem = prophet.prophet_forecasts(loads, 300.0, (1, 2))
    assert not problem
    errors = np.abs(found[2][600:1199] - loads[601:1200])
    assert np.nanmean(errors) < 4
    curves, problem = prophet.curves([(loads.tolist(), 10)], 300.0, limit_s=0.2)
    assert not curves and "took longer than 0.2 s" in problem
    assert "prophet" not in sys.modules
