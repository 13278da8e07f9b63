"""A run of the benchmark suite: outcomes with and without figures, and the commands around it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.suite import conditions
from bench.suite.local import local_place
from bench.suite.model import Benchmark, Figure, Outcome, Part, Progress
from bench.suite.repetition import Rules
from bench.suite.run import Setting, run_all

ROOT = Path(__file__).parents[2]
RULES = Rules(least=5, most=8, steady=0.05, cap_s=2.0)
FACTS = {"machine": {"cpu": "x"}, "versions": {"python": "3"}, "commit": "c"}
PART = Part(
    "spin",
    "echo",
    {"value": 7, "spin_ms": 20},
    {"value": 7, "spin_ms": 10},
    (Figure("spins", "1/s", ("ran_s",), amount=1.0),),
    verify=lambda payload, result: "" if result == {"value": payload["value"]} else f"it answered {result}",
)
SPIN = Benchmark("spin", "a processor's time", (PART,))


async def run(tmp_path: Path, *benchmarks: Benchmark, quick: bool = False) -> list[Outcome]:
    kept: list[Outcome] = []
    setting = Setting("r", quick, RULES, 1, "n1", FACTS)
    outcomes = await run_all(benchmarks, setting, lambda: local_place(tmp_path / "w", 1), lambda _: None, kept.append)
    assert kept == outcomes
    return outcomes


@pytest.mark.serial
async def test_an_outcome_has_all_figures_and_their_conditions(tmp_path) -> None:
    (outcome,) = await run(tmp_path, SPIN)
    assert (outcome.state, outcome.benchmark, outcome.headline) == ("ok", "spin", "spins")
    spins = outcome.figures["spins"]
    assert 5 <= len(spins.samples) <= 8 and spins.low <= spins.median <= spins.high
    assert 0 < spins.median <= 50, "20 ms of processor time each, so 50 a second at best"
    assert outcome.payload == {"spin": PART.payload} and outcome.machine == {"cpu": "x"} and outcome.commit == "c"
    assert outcome.reason.startswith("spin: ")
    memory = outcome.conditions.memory_gb_s
    assert len(memory) == len(spins.samples) + 1 and min(memory) > 0.1, (
        "one sample before each repetition, the warm-up included"
    )
    (quick,) = await run(tmp_path, SPIN, quick=True)
    assert quick.quick and max(quick.figures["spins"].samples) > 50, "half the work"


async def test_a_wrong_answer_is_no_result_and_ends_no_other_benchmark(tmp_path) -> None:
    planted = replace(PART, verify=lambda payload, result: "42 is not 7")
    wrong, right = await run(tmp_path, Benchmark("wrong", "", (PART, planted)), SPIN)
    assert (wrong.state, wrong.figures) == ("wrong answer", {}) and "42 is not 7" in wrong.reason
    assert right.state == "ok"


async def test_failed_or_refused_work_has_a_reason(tmp_path) -> None:
    refused = replace(PART, payload={"value": 1, "spin_ms": -1})
    no_number = replace(PART, figures=(Figure("x", "", ("nothing",)),))
    first, second = await run(tmp_path, Benchmark("a", "", (refused,)), Benchmark("b", "", (no_number,)))
    assert first.state == second.state == "failed" and first.figures == second.figures == {}
    assert "payload.spin_ms" in first.reason and "no number nothing" in second.reason


async def test_an_absent_library_is_named_with_how_to_install_it(tmp_path, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "duckdb" else real(name))
    (outcome,) = await run(tmp_path, Benchmark("sql", "", (replace(PART, kind="database_ops"),)))
    assert outcome.state == "missing library" and outcome.figures == {}
    assert "duckdb" in outcome.reason and "pip install 'queztl[sql]'" in outcome.reason


async def test_a_cancelled_run_keeps_its_outcomes(tmp_path) -> None:
    kept: list[Outcome] = []
    repeated = asyncio.Event()

    def on_progress(progress: Progress) -> None:
        if progress.benchmark == "long" and progress.last:
            repeated.set()

    long = Benchmark("long", "", (replace(PART, payload={"value": 7, "spin_ms": 300}),))
    setting = Setting("r", False, Rules(least=50, most=50, cap_s=60.0), 1, "", FACTS)
    work = run_all([long, SPIN], setting, lambda: local_place(tmp_path / "w", 1), on_progress, kept.append)
    running = asyncio.create_task(work)
    await asyncio.wait_for(repeated.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [(stored.benchmark, stored.state, stored.figures) for stored in kept] == [("long", "cancelled", {})]


def burn(cores: int) -> list[subprocess.Popen[bytes]]:
    """Processes that use a core each for at most ninety seconds: a measurement beside them takes longer."""
    script = "import time\nprint('burns', flush=True)\nend = time.monotonic() + 90\nwhile time.monotonic() < end: pass"
    started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(cores)]
    for process in started:
        assert process.stdout.readline() == b"burns\n"
    return started


async def test_a_busy_machine_is_reported(tmp_path) -> None:
    cores = conditions.psutil.cpu_count() or 1
    others = burn(cores)
    try:
        (outcome,) = await run(tmp_path, SPIN)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert outcome.state == "ok" and "were in use before it" in outcome.conditions.busy
    assert outcome.conditions.load_before > 0.5 * cores


def bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "bench", *arguments, "--out", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_the_commands(tmp_path) -> None:
    """Run twice, list, compare, report; with text for people and with JSON."""
    assert "never run" in bench("list", folder=tmp_path).stdout
    for _ in range(2):
        done = bench("run", "crypto_mining", "--quick", "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        (outcome,) = json.loads(done.stdout)["outcomes"]
        assert outcome["state"] == "ok" and outcome["figures"]["sha256d"]["median"] > 0
    assert "crypto_mining (1 of 1)" in done.stderr
    listed = json.loads(bench("list", "--json", folder=tmp_path).stdout)
    assert listed["crypto_mining"].startswith("sha256d ") and listed["database_ops"] == "never run"
    (difference,) = json.loads(bench("compare", "last-1", "last", "--json", folder=tmp_path).stdout)
    assert difference["figure"] == "sha256d" or "was busy" in difference["reason"]
    page, marked = tmp_path / "r.html", tmp_path / "r.md"
    done = bench("report", "--html", str(page), "--markdown", str(marked), folder=tmp_path)
    assert done.returncode == 0 and "RTX 4090" in done.stdout and "scaled" in done.stdout, done.stderr
    assert "<svg" in page.read_text() and "| `sha256d` |" in marked.read_text()
    refused = bench("report", "--html", str(page), folder=tmp_path)
    assert refused.returncode == 1 and "exists already; --force replaces it" in refused.stderr
    assert bench("report", "--html", str(page), "--force", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nothing"), "there is no benchmark nothing; there are llm_inference"),
        (("compare", "a", "b"), "no run 'a'; there are none yet"),
        (("report",), "no run 'last'"),
    ],
)
def test_an_error_is_one_sentence(tmp_path, arguments, message) -> None:
    done = bench(*arguments, folder=tmp_path)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


async def test_a_full_run_goes_over_all_benchmarks_in_passes(tmp_path) -> None:
    """The samples of all passes form one figure; a benchmark that failed is not repeated."""
    order: list[str] = []

    def on_progress(progress: Progress) -> None:
        if not progress.last and (not order or order[-1] != progress.benchmark):
            order.append(progress.benchmark)

    kept: list[Outcome] = []
    wrong = Benchmark("wrong", "", (replace(PART, verify=lambda payload, result: "42 is not 7"),))
    other = replace(SPIN, name="other")
    setting = Setting("r", False, replace(RULES, least=3, most=3, passes=2), 1, "n1", FACTS)
    outcomes = await run_all(
        [SPIN, wrong, other], setting, lambda: local_place(tmp_path / "w", 1), on_progress, kept.append
    )
    assert kept == outcomes and [outcome.state for outcome in outcomes] == ["ok", "wrong answer", "ok"]
    assert [len(outcome.figures["spins"].samples) for outcome in outcomes if outcome.figures] == [6, 6]
    assert order == ["spin", "wrong", "other"] * 2


async def test_a_run_cancelled_in_its_second_pass_keeps_the_first(tmp_path) -> None:
    kept: list[Outcome] = []
    second = asyncio.Event()

    def on_progress(progress: Progress) -> None:
        if progress.done == 2 and progress.last:
            second.set()

    setting = Setting("r", False, Rules(least=5, most=5, cap_s=60.0, passes=2), 1, "", FACTS)
    two = [replace(SPIN, name=name) for name in ("a", "b")]
    work = run_all(two, setting, lambda: local_place(tmp_path / "w", 1), on_progress, kept.append)
    running = asyncio.create_task(work)
    await asyncio.wait_for(second.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [(outcome.benchmark, outcome.state) for outcome in kept] == [("a", "ok"), ("b", "ok")]
    assert all(len(outcome.figures["spins"].samples) == 5 for outcome in kept)
    assert all(outcome.reason.endswith("the run was stopped in pass 2 of 2") for outcome in kept)
