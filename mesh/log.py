"""Logging: one line per event, as text for people or (`--json-logs`) as JSON for programs.

Each module logs under its own dotted name; the text form omits the top-level package. All logs go to stderr: stdout is
for the output of a command.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")

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


def set_up(level: str = "info", as_json: bool = False, stream: TextIO | None = None) -> None:
    """Configure the logging of this process, replacing any earlier configuration.

    `level` is one of LEVELS, in any case. Raises: ValueError for another level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}, not {level!r}")
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PeopleFormatter(number <= logging.DEBUG))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
