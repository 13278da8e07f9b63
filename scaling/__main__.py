"""`python -m scaling`: what each way of scaling would have cost on a demand that was; why a decision was made."""

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
from typing import Any

from scaling.backtest import synthetic, traces
from scaling.backtest.simulate import World, default_offers
from scaling.forecast import prophet


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m scaling", description="Capacity that follows demand.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    test = commands.add_parser(
        "backtest",
        help="replay a demand through every policy and compare what they cost",
        description="Replays a demand through the scaler's own decisions: settings from the first 60 %%, scored on the "
        "rest. docs/scaling.md says how it scores.",
    )
    test.add_argument("--trace", metavar="FILE", help="a CSV of time and load; without it, a set made from --seed")
    test.add_argument("--json", action="store_true", help="one JSON document on stdout, every scored step in it")
    test.add_argument(
        "--start-s", type=_positive, default=120.0, metavar="S", help="seconds a node takes to start [120]"
    )
    test.add_argument("--fail-share", type=_share, default=0.002, metavar="X", help="launches that never join [0.002]")
    test.add_argument("--seed", type=int, default=1, help="of the simulated failures, and of the set [1]")
    test.add_argument("--no-prophet", action="store_true", help="do without Prophet even where it is installed")
    explain = commands.add_parser(
        "explain",
        help="a past decision in words, made again from what it was made from",
        description="Reads a decision from the journal of a running mesh (or from a file), says why it was made, and "
        "makes it again. 1 when it comes out differently.",
    )
    explain.add_argument("id", metavar="ID", nargs="?", type=int, help="its number in the journal [the last one]")
    explain.add_argument("--url", metavar="URL", help="nats://HOST:PORT or http://HOST:PORT [QUEZTL_URL, else here]")
    explain.add_argument("--file", metavar="FILE", help="as `queztl --json scale explain` printed it; -: stdin")
    explain.add_argument("--json", action="store_true", help="one JSON document, with all it was made from")
    return made


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
    """0 when it is done, 1 with one sentence when it can't be."""
    flags = parser().parse_args(argv)
    return _explain_main(flags) if flags.command == "explain" else _backtest_main(flags)


def _explain_main(flags: argparse.Namespace) -> int:
    from mesh.errors import QueztlError
    from scaling.log import explain

    try:
        there = explain.from_file(flags.file) if flags.file else asyncio.run(explain.from_journal(flags.url, flags.id))
    except QueztlError as error:
        print(f"explain: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    made = explain.explained(there)
    print(json.dumps(made) if flags.json else "\n".join(made["says"]))
    return 1 if made["replayed"] is False else 0


def _backtest_main(flags: argparse.Namespace) -> int:
    if importlib.util.find_spec("numpy") is None:
        print(f"backtest: numpy is not installed ({prophet.HOW_TO_INSTALL})", file=sys.stderr)
        return 1
    try:
        documents = []
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
    _close(documents, flags)
    return 0


def _traces(flags: argparse.Namespace) -> Iterator[traces.Trace]:
    if flags.trace:
        try:
            text = Path(flags.trace).read_text(encoding="utf-8")
        except OSError as error:
            raise traces.TraceFault(f"{flags.trace} can't be read: {(error.strerror or str(error)).lower()}") from error
        except UnicodeDecodeError as error:
            raise traces.TraceFault(f"{flags.trace} is no text: a CSV of time and load is wanted") from error
        yield traces.read(Path(flags.trace).name, text)
        return
    for kind in synthetic.KINDS:
        loads = synthetic.make(kind, flags.seed)
        yield traces.Trace(f"{kind} (made, seed {flags.seed})", 0.0, synthetic.STEP_S, tuple(loads.tolist()))


def _backtest(trace: traces.Trace, flags: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from scaling.backtest.report import document
    from scaling.backtest.run import Backtest

    def tell(what: str, share: float) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{trace.name}: {share:4.0%} {what}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{trace.name}: {share:.0%} {what}", file=sys.stderr, flush=True)

    start_steps = ceil(flags.start_s / trace.step_s)
    notes, more, problem = [trace.note] if trace.note else [], {}, "Prophet was left out"
    if not flags.no_prophet:
        tell("fitting Prophet", 0.0)
        more, problem = prophet.candidates(np.array(trace.loads), trace.step_s, start_steps)
    if problem:
        notes.append(f"{problem}: the other models are used")
    world = World(
        trace.step_s, default_offers(flags.start_s), flags.fail_share, begins_at=trace.begins_at, seed=flags.seed
    )
    test = Backtest(trace.loads, world, start_steps, more, tell)
    made = document(trace.name, test, test.scored(test.tuned()), notes)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return made


def _close(documents: list[dict[str, Any]], flags: argparse.Namespace) -> None:
    if flags.trace:
        if flags.json:
            print(json.dumps(documents[0]))
        return
    ratios = [one["hybrid_over_reactive"] for one in documents if one["hybrid_over_reactive"] is not None]
    middle, worst = (statistics.median(ratios), max(ratios)) if ratios else (None, None)
    if flags.json:
        print(json.dumps({"hybrid_over_reactive": middle, "worst": worst, "series": documents}))
    elif ratios:
        print(f"hybrid over reactive: median {middle:.3f}, worst {worst:.3f} of {len(ratios)} series")


if __name__ == "__main__":
    sys.exit(main())
