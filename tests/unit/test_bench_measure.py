"""The benchmark's figures: quantiles of samples, ratios of pairs, an open loop that never sends early."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import __main__ as command
from bench.cases import mesh
from bench.harness import environment, profiling
from bench.harness.measure import Round, disturbance, median_interval, quantile, ratio, spread
from bench.harness.node_process import role
from bench.harness.pacing import evenly
from bench.harness.raw import PAYLOAD_BYTES, payload

SAMPLES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200)


@given(SAMPLES, st.floats(0.001, 1.0))
def test_a_quantile_is_a_sample_and_bounds_its_share(samples, share) -> None:
    found = quantile(samples, share)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= math.floor(share * len(samples))
    assert sum(sample < found for sample in samples) < share * len(samples)


def test_known_quantiles() -> None:
    samples = list(range(1, 101))
    assert (quantile(samples, 0.5), quantile(samples, 0.99), quantile(samples, 1.0)) == (50, 99, 100)
    with pytest.raises(ValueError):
        quantile([], 0.5)


@given(SAMPLES)
def test_rounds_that_are_the_same_have_no_spread(samples) -> None:
    assert spread(samples) >= 0
    assert spread([samples[0]] * len(samples)) == 0


def test_the_ratio_is_that_of_the_middle_pair() -> None:
    # A slow minute slows both halves of a pair; the ratio of the two medians would be 0.3.
    assert ratio([(10.0, 20.0), (1.0, 2.0), (6.0, 10.0)]) == 0.5
    assert Round(100, 0.5).per_s == 200


@given(st.floats(2e3, 1e6), st.integers(0, 40))
def test_an_open_loop_calls_once_each_in_order_and_never_early(rate_per_s, count) -> None:
    made: list[tuple[int, float]] = []

    async def run() -> float:
        began = time.perf_counter()
        await evenly(rate_per_s, count, lambda number: made.append((number, time.perf_counter())))
        return began

    began = asyncio.run(run())
    assert [number for number, _ in made] == list(range(count))
    assert all(at >= began + number / rate_per_s for number, at in made)


async def test_an_open_loop_that_is_cancelled_calls_no_more() -> None:
    made: list[int] = []
    loop = asyncio.create_task(evenly(1e3, 10_000, made.append))
    async with asyncio.timeout(30):
        while not made:
            await asyncio.sleep(0.001)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert not any(thread.name == "pacer" for thread in threading.enumerate())


def test_cpu_time_of_other_programs_is_kept_apart_from_what_was_measured() -> None:
    assert disturbance((10, 1, 100), (14, 2, 110), 3.0) == {"others": 0.1, "stolen": 0.1}
    assert disturbance((10, 1, 100), (14, 1, 110), 5.0) == {"others": 0.0, "stolen": 0.0}
    assert disturbance((0, 0, 0), (0, 0, 0), 0.0) == {"others": 0.0, "stolen": 0.0}


def test_the_environment_says_where_a_figure_comes_from() -> None:
    facts = environment.describe()
    assert facts["machine"]["cores"] >= 1 and facts["machine"]["memory_gib"] > 0
    assert facts["versions"]["nats-py"] and environment.version("no-such-package-here") == ""
    assert len(facts["load_before"]) == 3 and json.dumps(facts)
    used_s, stolen_s, every_s = environment.machine_cpu_s()
    assert 0 < used_s <= every_s and stolen_s >= 0


def test_each_process_of_a_node_is_known() -> None:
    assert role(["nats-server", "-c", "/d/bus/server.conf"]) == "server"
    assert role(["nats-server", "-c", "/d/bus/witness.conf"]) == "witness"
    assert role(["python", "-P", "-m", "node.executor.worker_main", "1"]) == "worker"
    assert role(["sh", "-c", "…"]) == "guard"


def test_a_raw_task_names_itself_in_64_bytes() -> None:
    assert len(payload(7)) == PAYLOAD_BYTES and payload(7) != payload(70)


def test_a_profile_is_read_by_own_time() -> None:
    assert profiling.top("main;a 3\nmain;b 1\nmain;a 4\nnonsense\n", 1) == "   87.5%  a"


def test_the_command_wants_a_case(capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main([])
    assert refused.value.code == 2 and "CASE" in capsys.readouterr().err


def test_the_table_shows_every_figure() -> None:
    document = {
        "tasks_per_s": 1234, "p50_ms": 0.51, "p99_ms": 2.2, "ratio_to_raw": 0.61, "cpu_1ms_tasks_per_s": 1500,
        "idle_pss_mb": 70.1, "raw_p50_ms": 0.4, "raw_p99_ms": 0.9, "raw_tasks_per_s": 2000,
        "latency_at_tasks_per_s": 185,
        "spread": {"tasks_per_s": 0.1, "raw_tasks_per_s": 0.2, "cpu_1ms_tasks_per_s": 0.3},
        "cpu_us_per_task": {"daemon": 20.0}, "raw_cpu_us_per_task": {"server": 10.0},
        "idle_pss_mb_of": {"daemon": 70.1}, "quick": True, "disturbed": {"others": 0.25, "stolen": 0.0},
        "commit": "abc", "load_before": [0.1, 0, 0], "machine": {"cpu": "x", "cores": 2, "system": "y"},
    }  # fmt: skip
    shown = mesh.table(document)
    for text in ("1,234", "2,000", "0.61", "0.51 / 2.20", "1,500", "70.1", "25%", "a look, not a result"):
        assert text in shown


def test_the_median_lies_between_the_second_and_the_eighth_of_nine() -> None:
    low, high, confidence = median_interval([9, 1, 2, 8, 3, 7, 4, 6, 5])
    assert (low, high) == (2, 8) and math.isclose(confidence, 1 - 2 * (1 + 9) / 512)
    assert median_interval([3.0]) == (3.0, 3.0, 0.0)
    assert median_interval([1, 2, 3])[:2] == (1, 3) and median_interval([1, 2, 3])[2] < 0.95
    assert median_interval(list(range(100)))[:2] == (39, 60)
    with pytest.raises(ValueError, match="no samples"):
        median_interval([])


def test_a_missing_profiler_is_said_before_anything_is_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(profiling.shutil, "which", lambda _: None)
    monkeypatch.setattr(profiling.sys, "executable", str(tmp_path / "python"))
    assert command.main(["mesh", "--quick", "--profile", str(tmp_path)]) == 1
    assert "pip install py-spy" in capsys.readouterr().err
