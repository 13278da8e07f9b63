"""The progress of a run: a bar on a terminal, one line per benchmark elsewhere, JSON lines for a program."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from bench.suite.model import Progress
from bench.suite.run import OnProgress


class Lines:
    """Prints one JSON object per change on stdout."""

    def __enter__(self) -> OnProgress:
        return self._on_progress

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def _on_progress(self, progress: Progress) -> None:
        fields = ("total", "done", "benchmark", "node", "repetition", "last")
        print(json.dumps({name: getattr(progress, name) for name in fields}), flush=True)


class ProgressBar:
    """Shows a live bar on a terminal's stderr, and prints one line per benchmark elsewhere."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        name, last = TextColumn("{task.description}"), TextColumn("{task.fields[last]}")
        columns = (name, BarColumn(), TimeElapsedColumn(), last)
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=total, last="") if self._bar else None
        self._printed = ("", "")

    def __enter__(self) -> OnProgress:
        if self._bar:
            self._bar.start()
        return self._on_progress

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def _on_progress(self, progress: Progress) -> None:
        current = (progress.node, progress.benchmark)
        if self._bar and self._task is not None:
            description = f"{' '.join(filter(None, current))} #{progress.repetition}"
            self._bar.update(
                self._task, completed=progress.done, total=progress.total, description=description, last=progress.last
            )
        elif current != self._printed:
            self._printed = current
            where = f" on {progress.node}" if progress.node else ""
            count = f"({progress.done + 1} of {progress.total})"
            print(f"bench: {progress.benchmark}{where} {count}", file=sys.stderr, flush=True)
