"""`python -m scaling`: back-test scaling policies on a recorded demand; explain a past decision."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.backtest import synthetic, traces
from scaling.backtest.simulate import Scenario, default_offers
from scaling.forecast import prophet

if TYPE_CHECKING:
    from numpy import ndarray


def command_line() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scaling", description="Capacity that follows demand.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    test = commands.add_parser(
        "backtest",
        help="simulate a demand with every policy and compare their costs",
        description="Simulates a demand with the decisions of a real mesh: settings are tuned on the first 60 %% and "
        "scored on the rest. docs/scaling.md describes the scoring.",
    )
    test.add_argument("--trace", metavar="FILE", help="a CSV of time and load; without it, synthetic demands of --seed")
    test.add_argument("--json", action="store_true", help="print one JSON document, with every scored step")
    test.add_argument(
        "--start-s", type=_positive, default=120.0, metavar="S", help="seconds a node takes to start [120]"
    )
    test.add_argument(
        "--fail-share", type=_share, default=0.002, metavar="X", help="share of launches that never join [0.002]"
    )
    test.add_argument(
        "--seed", type=int, default=1, help="seed of the simulated failures and the synthetic demands [1]"
    )
    test.add_argument("--no-prophet", action="store_true", help="do not use Prophet even where it is installed")
    explain = commands.add_parser(
        "explain",
        help="explain a past decision, and replay it",
        description="Reads a decision from the journal of a running mesh (or from a file), gives its reasons, and "
        "replays it from its inputs. Exits with 1 when the replay differs.",
    )
    explain.add_argument("id", metavar="ID", nargs="?", type=int, help="its number in the journal [the last decision]")
    explain.add_argument(
        "--url", metavar="URL", help="nats://HOST:PORT or http://HOST:PORT [QUEZTL_URL, else this machine]"
    )
    explain.add_argument("--file", metavar="FILE", help="read the output of `queztl --json scale explain`; -: stdin")
    explain.add_argument("--json", action="store_true", help="print one JSON document, with all inputs")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("must lie between 0 and 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 after one sentence on stderr that says why it failed."""
    flags = command_line().parse_args(argv)
    return _explain_main(flags) if flags.command == "explain" else _backtest_main(flags)


def _explain_main(flags: argparse.Namespace) -> int:
    from mesh.errors import QueztlError
    from scaling.log.explain import explain, from_file, from_journal

    try:
        written = from_file(flags.file) if flags.file else asyncio.run(from_journal(flags.url, flags.id))
    except QueztlError as error:
        print(f"explain: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    explained = explain(written)
    print(json.dumps(explained) if flags.json else "\n".join(explained["says"]))
    return 1 if explained["replayed"] is False else 0


def _backtest_main(flags: argparse.Namespace) -> int:
    if importlib.util.find_spec("numpy") is None:
        print(f"backtest: numpy is not installed ({prophet.HOW_TO_INSTALL})", file=sys.stderr)
        return 1
    try:
        documents: list[dict[str, Any]] = []
        for trace in _traces(flags):
            documents.append(_backtest(trace, flags))
            if not flags.json:
                from scaling.backtest.report import table

                print(table(documents[-1]), end="\n\n")
    except traces.TraceFault as fault:
        print(f"backtest: {fault}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _print_summary(documents, flags)
    return 0


def _traces(flags: argparse.Namespace) -> Iterator[traces.Trace]:
    if flags.trace:
        try:
            text = Path(flags.trace).read_text(encoding="utf-8")
        except OSError as error:
            raise traces.TraceFault(f"{flags.trace} can't be read: {(error.strerror or str(error)).lower()}") from error
        except UnicodeDecodeError as error:
            raise traces.TraceFault(f"{flags.trace} is not a text file: expected a CSV of time and load") from error
        yield traces.read(Path(flags.trace).name, text)
        return
    for kind in synthetic.KINDS:
        loads = synthetic.make(kind, flags.seed)
        yield traces.Trace(f"{kind} (synthetic, seed {flags.seed})", 0.0, synthetic.STEP_S, tuple(loads.tolist()))


def _backtest(trace: traces.Trace, flags: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from scaling.backtest.report import document
    from scaling.backtest.run import Backtest

    def progress(what: str, share: float) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{trace.name}: {share:4.0%} {what}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{trace.name}: {share:.0%} {what}", file=sys.stderr, flush=True)

    start_steps = ceil(flags.start_s / trace.step_s)
    notes = [trace.note] if trace.note else []
    more: dict[str, dict[int, ndarray]] = {}
    problem = "Prophet was left out"
    if not flags.no_prophet:
        progress("fitting Prophet", 0.0)
        more, problem = prophet.prophet_candidates(np.array(trace.loads), trace.step_s, start_steps)
    if problem:
        notes.append(f"{problem}: the other models are used")
    scenario = Scenario(
        trace.step_s, default_offers(flags.start_s), flags.fail_share, begins_at=trace.begins_at, seed=flags.seed
    )
    test = Backtest(trace.loads, scenario, start_steps, more, progress)
    made = document(trace.name, test, test.scored(test.tuned()), notes)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return made


def _print_summary(documents: list[dict[str, Any]], flags: argparse.Namespace) -> None:
    if flags.trace:
        if flags.json:
            print(json.dumps(documents[0]))
        return
    ratios = [each["hybrid_over_reactive"] for each in documents if each["hybrid_over_reactive"] is not None]
    median, worst = (statistics.median(ratios), max(ratios)) if ratios else (None, None)
    if flags.json:
        print(json.dumps({"hybrid_over_reactive": median, "worst": worst, "series": documents}))
    elif ratios:
        print(f"Cost of hybrid over reactive: median {median:.3f}, worst {worst:.3f} of {len(ratios)} series")


if __name__ == "__main__":
    sys.exit(main())
