"""What nats-server says about its store in its log and nowhere else: write errors and lost messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: The most that one look reads, bytes.
_READ_BYTES = 1 << 20
_STARTED = "Starting nats-server"
#: A part of the server stopped writing. It keeps the error until it is started again.
_WRITE_ERROR = re.compile(
    r"critical write error|failed to store a msg|will be DISABLED|disabling JetStream|too many open files",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LogFacts:
    """What the log has said since the last start of the server."""

    write_errors: int = 0
    lines: tuple[str, ...] = field(default=())
    """The last lines that report one."""


def read_lines(before: LogFacts, lines: Iterable[str]) -> LogFacts:
    """`before` and what `lines` add. A line that the server starts with begins anew. Pure."""
    errors, kept = before.write_errors, list(before.lines)
    for line in lines:
        if _STARTED in line:
            errors = 0
            kept.clear()
        elif _WRITE_ERROR.search(line):
            errors += 1
            kept = [*kept[-2:], line.partition("] ")[2] or line]
    return LogFacts(errors, tuple(kept))


class ServerLog:
    """Follows the log of one server, also when nats-server begins a new file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._inode, self._offset = 0, 0
        self.facts = LogFacts()

    def look(self) -> LogFacts:
        """Read what was added since the last look. Blocks; a log that can't be read adds nothing."""
        try:
            with open(self._file, "rb") as log:
                status = self._file.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                self._offset = max(self._offset, status.st_size - _READ_BYTES)
                log.seek(self._offset)
                data = log.read(_READ_BYTES)
        except OSError:
            return self.facts
        whole = data.rpartition(b"\n")[0] + b"\n" if b"\n" in data else b""
        self._offset += len(whole)
        self.facts = read_lines(self.facts, whole.decode(errors="replace").splitlines())
        return self.facts
