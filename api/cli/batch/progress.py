"""The progress of `map`: a bar with rate and time left on a terminal, a line a file elsewhere."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from api.cli.output.formatting import name_fields, printable

if TYPE_CHECKING:
    from api.cli.batch.run import Outcome
    from api.cli.output.console import Output


class Progress:
    """`with Progress(out, total, folder) as progress: progress.report(outcome)`; counts what was reported."""

    def __init__(self, out: Output, total: int, folder: str) -> None:
        self._out, self._total, self._folder = out, total, folder
        self.done = 0
        self.failed: list[Outcome] = []
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and self._total and not self._out.as_json and not self._out.quiet:
            self._bar, self._task = _bar(self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Print a sentence about the work, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            self._out.note(text)

    def report(self, outcome: Outcome) -> None:
        """Count and show the outcome of one input."""
        if outcome.error is None:
            self.done += 1
        else:
            self.failed.append(outcome)
        if self._out.as_json:
            self._out.document(document(outcome, self._folder))
        elif self._bar is not None:
            count = len(self.failed)
            self._bar.update(self._task, advance=1, failed=f"{count} failed" if count else "")
        elif not self._out.quiet:
            self._out.line(line(outcome, self._folder))


def line(outcome: Outcome, folder: str) -> str:
    """The outcome of one input on one line."""
    if outcome.error is None:
        return f"done    {outcome.input} -> {os.path.join(folder, outcome.output)}"
    return f"failed  {outcome.input}: {outcome.error['reason']}"


def document(outcome: Outcome, folder: str) -> dict[str, Any]:
    """The outcome of one input for programs."""
    shown: dict[str, Any] = {**name_fields("input", outcome.input), "task": outcome.task, "state": "done"}
    if outcome.error is None:
        return shown | name_fields("output", os.path.join(folder, outcome.output))
    return shown | outcome.error


def _bar(total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        """Files a second."""

        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "-/s")

    bar = RichProgress(
        BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        console=Console(file=sys.stderr),
    )  # fmt: skip
    return bar, bar.add_task("map", total=total, failed="")
