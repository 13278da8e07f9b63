"""Logging: one line per event, as text for people or (`--json-logs`) as JSON for programs.

Each module logs under its own dotted name; the text form omits the top-level package. All logs go to stderr: stdout is
for the output of a command.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")

#: How many lines may wait to be written, and how long the process waits for them when it ends, seconds.
_LINES, _FLUSH_S = 10_000, 1.0

#: Libraries whose messages below warning are not for operators.
_CHATTY = ("asyncio", "nats", "zeroconf", "aiohttp", "aiohttp.access", "urllib3")


class PeopleFormatter(logging.Formatter):
    """`12:30:01 warning discovery.mdns: sentence`; the traceback follows at level debug only."""

    def __init__(self, tracebacks: bool = False) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, followed by its traceback if tracebacks are enabled."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        component = record.name.partition(".")[2] or record.name
        line = f"{at} {record.levelname.lower():<7} {component}: {record.getMessage()}"
        if self._tracebacks and record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: at, level, component, message, and where present task and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line of JSON."""
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": record.name,
            "message": record.getMessage(),
        }
        if task := getattr(record, "taskName", None):
            fields["task"] = task
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class BackgroundHandler(logging.Handler):
    """Formats a record where it is logged, and writes it in a thread of its own.

    A log on a disk that hangs, or a pipe that nobody reads, must not stop the process. When too many lines wait, the
    newest are dropped, and counted in a line of their own.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_LINES)
        self._dropped = 0
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record to what is to be written."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="log", daemon=True)
            self._writer.start()
        try:
            if self._dropped:
                self._lines.put_nowait(f"{self._dropped} lines of this log were dropped: it could not be written")
                self._dropped = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until everything is written, for a second at most. Called when the process ends, too."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, _FLUSH_S)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            # A log that can't be written has no place where that could be logged.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(f"{line}\n")
                if self._lines.empty():
                    self._stream.flush()
            self._lines.task_done()


def set_up(level: str = "info", as_json: bool = False, stream: TextIO | None = None) -> None:
    """Configure the logging of this process, replacing any earlier configuration.

    `level` is one of LEVELS, in any case. Raises: ValueError for another level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}, not {level!r}")
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = BackgroundHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PeopleFormatter(number <= logging.DEBUG))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
