"""How a run tells how far it is: a bar on a terminal, a line a benchmark elsewhere, JSON lines for a program."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from bench.suite.model import Progress
from bench.suite.run import Told


class Lines:
    """A JSON object a line on stdout, at every change."""

    def __enter__(self) -> Told:
        return self._told

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def _told(self, progress: Progress) -> None:
        fields = ("total", "done", "benchmark", "node", "repetition", "last")
        print(json.dumps({name: getattr(progress, name) for name in fields}), flush=True)


class progress_bar:
    """A live line on a terminal's stderr, elsewhere a line a benchmark."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        words, last = TextColumn("{task.description}"), TextColumn("{task.fields[last]}")
        columns = (words, BarColumn(), TimeElapsedColumn(), last)
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=total, last="") if self._bar else None
        self._said = ("", "")

    def __enter__(self) -> Told:
        if self._bar:
            self._bar.start()
        return self._told

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def _told(self, progress: Progress) -> None:
        now = (progress.node, progress.benchmark)
        if self._bar and self._task is not None:
            what = f"{' '.join(filter(None, now))} #{progress.repetition}"
            self._bar.update(
                self._task, completed=progress.done, total=progress.total, description=what, last=progress.last
            )
        elif now != self._said:
            self._said = now
            where = f" on {progress.node}" if progress.node else ""
            count = f"({progress.done + 1} of {progress.total})"
            print(f"bench: {progress.benchmark}{where} {count}", file=sys.stderr, flush=True)
