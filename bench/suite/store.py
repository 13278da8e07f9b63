"""Runs on disk: one file per run, one JSON line per outcome, so that an interrupted run keeps its outcomes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.harness.measure import BenchFailed
from bench.suite.model import Outcome, WrongSchema, from_line, to_line

SUFFIX = ".jsonl"


def default_folder() -> Path:
    """The folder of the runs: QUEZTL_BENCH, else `.bench` in the working directory."""
    return Path(os.environ.get("QUEZTL_BENCH") or ".bench")


def new_run() -> str:
    """A new name of a run; names sort by time: 20260124T101500-123."""
    now = time.time()
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{int(now * 1000) % 1000:03}"


def append(folder: Path, outcome: Outcome) -> None:
    """Add one outcome to its run's file. Raises: BenchFailed when the folder can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{outcome.run}{SUFFIX}").open("ab") as file:
            file.write(to_line(outcome))
    except OSError as error:
        raise BenchFailed(f"{folder} can't be written ({error.strerror}); name another folder with --out") from None


def runs(folder: Path) -> list[str]:
    """The names of the runs in a folder, oldest first."""
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))


def read(what: str, folder: Path) -> list[Outcome]:
    """The latest outcome of each benchmark on each node of a run. `what`: its name, its file, `last` or `last-1` …

    Raises: BenchFailed.
    """
    path = _find(what, folder)
    found: dict[tuple[str, str], Outcome] = {}
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise BenchFailed(f"{path} can't be read ({error.strerror})") from None
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            break  # the run was interrupted in this line
        try:
            outcome = from_line(line)
        except WrongSchema as error:
            raise BenchFailed(f"{path}, line {number}: {error}") from None
        found[outcome.node, outcome.benchmark] = outcome
    if not found:
        raise BenchFailed(f"{path} has no outcome")
    return list(found.values())


def _find(what: str, folder: Path) -> Path:
    if Path(what).is_file():
        return Path(what)
    known = runs(folder)
    if what == "last" or (what.startswith("last-") and what[5:].isdigit()):
        back = int(what[5:] or 0) if what != "last" else 0
        if back < len(known):
            return folder / f"{known[-1 - back]}{SUFFIX}"
    matching = [name for name in known if name == what or name.startswith(what)]
    if len(matching) == 1:
        return folder / f"{matching[0]}{SUFFIX}"
    there = f"there are {', '.join(known[-5:])}" if known else "there are none yet: `python -m bench run` makes one"
    raise BenchFailed(f"{folder} has {'several runs' if matching else 'no run'} {what!r}; {there}")
