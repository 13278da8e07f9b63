"""What nats-server says about its store in its log and nowhere else: write errors, and what it found at its start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mesh.bus.server.store_audit import restored_in

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
    restored: Mapping[str, int] = field(default_factory=dict)
    """Stream -> messages that it found in its store."""


def read_lines(before: LogFacts, lines: Iterable[str]) -> LogFacts:
    """`before` and what `lines` add. The first line of a server's start resets everything. Pure."""
    lines = list(lines)
    errors, restored = before.write_errors, dict(before.restored)
    started = max((number for number, line in enumerate(lines) if _STARTED in line), default=-1)
    if started >= 0:
        lines, errors = lines[started:], 0
        restored.clear()
    errors += sum(_WRITE_ERROR.search(line) is not None for line in lines)
    return LogFacts(errors, {**restored, **restored_in(lines)})


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
