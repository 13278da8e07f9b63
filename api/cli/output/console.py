"""Where a command's words go: stdout for what was asked for, stderr for everything said about it.

With --json stdout carries JSON only: one document, or one a line for `map` and `watch`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from api.cli.output.exit_codes import error_document, sentence
from api.cli.output.formatting import STYLES, printable

#: A pipe has no width: wide enough that no cell is cut.
PIPE_COLUMNS = 400


class Output:
    """Prints for people, or for programs when `as_json`; `by_line`: each document on a line of its own."""

    def __init__(self, as_json: bool = False, quiet: bool = False, by_line: bool = False) -> None:
        self.as_json, self.quiet, self._by_line = as_json, quiet, by_line

    # --- for programs -------------------------------------------------------------------------------
    def document(self, value: Any) -> None:
        """The answer as JSON: bytes as base64, dataclasses and structs as objects."""
        import msgspec

        text = msgspec.json.encode(value, enc_hook=str)
        if not self._by_line:
            text = msgspec.json.format(text, indent=2)
        sys.stdout.write(text.decode() + "\n")
        sys.stdout.flush()

    # --- for people ---------------------------------------------------------------------------------
    def line(self, text: str = "") -> None:
        """Something that was asked for; nothing with --json."""
        if not self.as_json:
            print(printable(text), flush=True)

    def piece(self, text: str) -> None:
        """A part of a text that grows; nothing with --json."""
        if not self.as_json:
            print(printable(text), end="", flush=True)

    def note(self, text: str) -> None:
        """Something about what was asked for, on stderr; not with --quiet, not with --json."""
        if not self.quiet and not self.as_json:
            print(printable(text), file=sys.stderr, flush=True)

    def value(self, value: Any) -> None:
        """A result that is plain data: text as it is, the rest as indented JSON."""
        if isinstance(value, str):
            print(value if not sys.stdout.isatty() else printable(value))
        else:
            self.document(value)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing") -> None:
        """A table; a cell that is a state is coloured on a terminal."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            made.add_column(column, overflow="fold")
        count = 0
        for row in rows:
            count += 1
            cells = [printable(cell) for cell in row]
            made.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
        if not count:
            self.line(empty)
            return
        width = None if sys.stdout.isatty() else PIPE_COLUMNS
        Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False).print(made)

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; empty values are left out."""
        shown = [(name, printable(value)) for name, value in pairs if value not in ("", None, (), [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{name:<{width}}  {value}")

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
        """Raises: BadInput when bytes would go to a terminal."""
        from mesh.errors import BadInput

        if target is None and not self.as_json and sys.stdout.isatty():
            raise BadInput(f"the result is {content_type or 'bytes'}; write it to a file with -o FILE")
