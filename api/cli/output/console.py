"""Where the output of a command goes: stdout for what was asked for, stderr for everything about it.

With --json stdout carries JSON only: one document, or one a line for `map` and `watch`. All text passes
`formatting.printable` here, so that nothing from another machine controls the terminal or breaks a table.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from api.cli.output.exit_codes import error_document, sentence
from api.cli.output.formatting import STYLES, json_bytes, printable
from api.cli.output.table import GAP, Column, fit

#: Text beside a name is wrapped only when at least this much of the terminal is left for it.
MIN_TEXT = 20


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None for a pipe or a file, where a row is always one line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _wrap(text: str, indent: str, first: str = "") -> str:
    """`text` after `first`, wrapped to the terminal; in a pipe, or where it is too narrow, on one line."""
    width = terminal_width()
    if width is None or width - len(indent) < MIN_TEXT:
        return first + text
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _style(column: Column, cell: str) -> str:
    return STYLES.get(cell, "") if column.is_state else ""


class Output:
    """Prints for people, or for programs when `as_json`; `by_line`: each document on a line of its own."""

    def __init__(self, as_json: bool = False, quiet: bool = False, by_line: bool = False) -> None:
        self.as_json, self.quiet, self._by_line = as_json, quiet, by_line

    # --- for programs -------------------------------------------------------------------------------
    def document(self, value: Any) -> None:
        """The answer as JSON: bytes as base64, dataclasses and structs as objects."""
        encoded = json_bytes(value)
        if not self._by_line:
            import msgspec

            encoded = msgspec.json.format(encoded, indent=2)
        text = encoded.decode()
        sys.stdout.write((printable(text, keep_lines=True) if sys.stdout.isatty() else text) + "\n")
        sys.stdout.flush()

    # --- for people ---------------------------------------------------------------------------------
    def line(self, text: str = "") -> None:
        """A line of what was asked for; nothing with --json."""
        if not self.as_json:
            print(printable(text), flush=True)

    def wrapped(self, text: str, indent: str = "  ") -> None:
        """A sentence that may be long: on a terminal wrapped, its further lines indented."""
        if not self.as_json:
            print(_wrap(printable(text), indent), flush=True)

    def marked(self, state: str, mark: str, text: str) -> None:
        """`mark`, in the colour of `state` on a terminal, and a sentence beside it; nothing with --json."""
        from rich.console import Console
        from rich.text import Text

        if self.as_json:
            return
        shown = _wrap(printable(text), " " * len(mark), first=" " * len(mark))[len(mark) :]
        console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
        console.print(Text.assemble((mark, STYLES.get(state, "")), shown))

    def piece(self, text: str) -> None:
        """A part of a text that grows; nothing with --json."""
        if not self.as_json:
            print(printable(text, keep_lines=True), end="", flush=True)

    def note(self, text: str) -> None:
        """Something about what was asked for, on stderr; not with --quiet, not with --json."""
        if not self.quiet and not self.as_json:
            print(printable(text), file=sys.stderr, flush=True)

    def value(self, value: Any) -> None:
        """A result that is plain data: text as it is, the rest as indented JSON."""
        if isinstance(value, str):
            print(printable(value, keep_lines=True) if sys.stdout.isatty() else value)
        else:
            self.document(value)

    def table(
        self, columns: Sequence[str | Column], rows: Iterable[Sequence[object]], empty: str = "nothing to show"
    ) -> None:
        """A table that fits the terminal; in a pipe each row is one line. States are coloured."""
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        cells = [[printable(cell) for cell in row] for row in rows]
        if not cells:
            self.line(empty)
            return
        specs = [column if isinstance(column, Column) else Column(column) for column in columns]
        widths = [max(cell_len(row[index]) for row in cells) for index in range(len(specs))]
        shown = fit(specs, widths, terminal_width())
        drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        for index, width in shown.items():
            justify = "right" if specs[index].right else "left"
            drawn.add_column(specs[index].name, width=width, justify=justify, overflow="fold")
        for row in cells:
            drawn.add_row(*(Text(row[index], style=_style(specs[index], row[index])) for index in shown))
        total = sum(shown.values()) + GAP * len(shown)
        console = Console(file=sys.stdout, width=total, markup=False, highlight=False, emoji=False)
        with console.capture() as capture:
            console.print(drawn)
        print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; empty values are left out. A long value is wrapped on a terminal."""
        shown = [(name, printable(value)) for name, value in pairs if value not in ("", None, (), [], {})]
        indent = max((len(name) for name, _ in shown), default=0) + GAP
        for name, value in shown:
            if not self.as_json:
                print(_wrap(value, " " * indent, first=f"{name:<{indent}}").rstrip(), flush=True)

    # --- errors -------------------------------------------------------------------------------------
    def error(self, error: BaseException) -> None:
        """One sentence on stderr, each fault on a line of its own; with --json also a document on stdout."""
        print(f"queztl: {printable(sentence(error))}", file=sys.stderr)
        for fault in getattr(error, "faults", ()):
            print(f"  {printable(fault.field)}: {printable(fault.problem)}", file=sys.stderr)
        if self.as_json:
            self.document(error_document(error))

    # --- bytes --------------------------------------------------------------------------------------
    def refuse_terminal(self, target: Path | None, content_type: str) -> None:
        """Refuse to print bytes on a terminal. Raises: BadInput."""
        from mesh.errors import BadInput

        if target is None and not self.as_json and sys.stdout.isatty():
            raise BadInput(f"the result is {content_type or 'bytes'}; write it to a file with -o FILE")
