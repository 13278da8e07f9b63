"""The journal of `map` in its output folder: the same command resumes where the last one stopped.

A file of JSON lines, only appended to: {"input", "stem"} when an input gets its name, {"input", "writing"} before its
output is put in place, {"input", "key", "output"} once it is. Reading and deciding are pure; `Journal` owns the file
and its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Any

NAME = ".queztl-map.jsonl"
FAILURES = "failures.json"


@dataclass(frozen=True)
class Remembered:
    """The content of a journal."""

    stems: dict[str, str] = field(default_factory=dict)
    """input -> stem of its output"""
    done: dict[str, tuple[str, str]] = field(default_factory=dict)
    """input -> (key of the work, output); of several entries the last one counts. Outputs and stems are relative to
    the output folder, and below it."""
    written: set[str] = field(default_factory=set)
    """Every output that was put in place, or was about to be: these files may be replaced."""


def read(text: str) -> Remembered:
    """Parse a journal; lines that can't be read (a write that was cut off) are skipped."""
    stems: dict[str, str] = {}
    done: dict[str, tuple[str, str]] = {}
    written: set[str] = set()
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            if "stem" in entry:
                stems[str(entry["input"])] = _below(entry["stem"])
            elif "writing" in entry:
                written.add(_below(entry["writing"]))
            else:
                done[str(entry["input"])] = (str(entry["key"]), _below(entry["output"]))
                written.add(done[str(entry["input"])][1])
        except (ValueError, KeyError, TypeError):
            continue
    return Remembered(stems, done, written)


def _below(name: Any) -> str:
    """Raises: ValueError for a path that leads out of the output folder."""
    path = PurePath(str(name))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(name)
    return str(name)


def is_own(name: str) -> bool:
    """Whether `map` keeps a hidden file of that name in its output folder."""
    return name == NAME or name.endswith(".part")


def outputs_of(folder: str) -> set[str]:
    """The paths of the files that a `map` with that output folder wrote; none when it is no output folder."""
    try:
        text = Path(folder, NAME).read_text("utf-8", "replace")
    except OSError:
        return set()
    return {os.path.join(folder, name) for name in (*read(text).written, FAILURES)}


def key(path: str, size: int, mtime_ns: int, kind: str, field_name: str, payload: Any) -> str:
    """The identity of an output: the state of its input file, and the work that was done on it."""
    facts = json.dumps([path, size, mtime_ns, kind, field_name, payload], sort_keys=True)
    return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()


def missing(keys: Mapping[str, str], remembered: Remembered, outputs_there: Iterable[str]) -> list[str]:
    """The inputs (of `keys`: input -> key) whose output does not exist or has another key."""
    there = set(outputs_there)
    return [
        path
        for path, key_now in keys.items()
        if (before := remembered.done.get(path)) is None or before[0] != key_now or before[1] not in there
    ]


class Journal:
    """The journal of one output folder. Raises: BadInput when another `map` is writing there; OSError."""

    def __init__(self, folder: Path) -> None:
        from mesh.errors import BadInput
        from mesh.files import named

        self._path = folder / NAME
        self._file: IO[bytes] = self._path.open("a+b")
        try:
            with named(self._path):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BadInput(
                f"another `queztl map` writes to {folder}; wait until it has ended, or use another --out"
            ) from None
        self._file.seek(0)
        content = self._file.read()
        self.remembered = read(content.decode("utf-8", "replace"))
        if content and not content.endswith(b"\n"):
            self._write("\n")

    def name(self, stems: Mapping[str, str]) -> None:
        """Record the names of inputs before anything is written under them."""
        new = {path: stem for path, stem in stems.items() if self.remembered.stems.get(path) != stem}
        self._write("".join(json.dumps({"input": path, "stem": stem}) + "\n" for path, stem in new.items()))

    def writing(self, input_: str, output: str) -> None:
        """Record an output that is about to be put in place."""
        self._write(json.dumps({"input": input_, "writing": output}) + "\n")

    def finished(self, input_: str, key_: str, output: str) -> None:
        """Record an output that is in place."""
        self._write(json.dumps({"input": input_, "key": key_, "output": output}) + "\n")

    def _write(self, text: str) -> None:
        from mesh.files import named

        with named(self._path):
            self._file.write(text.encode())
            self._file.flush()

    def close(self) -> None:
        """Release the lock."""
        with contextlib.suppress(OSError):
            self._file.close()
