"""What `map` remembers in its output folder, so that the same command goes on where the last one was stopped.

A file of JSON lines, appended to: {"input", "stem"} when an input is given its name, {"input", "key", "output"}
when its output is in place. Reading and deciding are pure; `Journal` owns the file and its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

NAME = ".queztl-map.jsonl"
FAILURES = "failures.json"


@dataclass(frozen=True)
class Remembered:
    """What a journal says."""

    stems: dict[str, str] = field(default_factory=dict)
    """input -> stem of its output"""
    done: dict[str, tuple[str, str]] = field(default_factory=dict)
    """input -> (key of what was done, name of the output): the last one counts, the file holds that"""


def read(text: str) -> Remembered:
    """A journal's content; lines that can't be read (a write that was cut off) are passed over."""
    stems: dict[str, str] = {}
    done: dict[str, tuple[str, str]] = {}
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            if "stem" in entry:
                stems[str(entry["input"])] = str(entry["stem"])
            else:
                done[str(entry["input"])] = (str(entry["key"]), str(entry["output"]))
        except (ValueError, KeyError, TypeError):
            continue
    return Remembered(stems, done)


def key(path: str, size: int, mtime_ns: int, kind: str, field_name: str, payload: Any) -> str:
    """What makes an input's output the right one: the file as it was, and what was to be done to it."""
    facts = json.dumps([path, size, mtime_ns, kind, field_name, payload], sort_keys=True)
    return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()


def missing(keys: Mapping[str, str], remembered: Remembered, outputs_there: Iterable[str]) -> list[str]:
    """The inputs (of `keys`: input -> key) whose output is not there, or was made of something else."""
    there = set(outputs_there)
    return [
        one
        for one, wanted in keys.items()
        if (before := remembered.done.get(one)) is None or before[0] != wanted or before[1] not in there
    ]


class Journal:
    """The journal of one output folder. Raises: BadInput when another `map` is writing there; OSError."""

    def __init__(self, folder: Path) -> None:
        from mesh.errors import BadInput

        self._file: IO[bytes] = (folder / NAME).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise BadInput(f"another `queztl map` writes to {folder}; wait for it, or use another --out") from None
        self._file.seek(0)
        content = self._file.read()
        self.remembered = read(content.decode("utf-8", "replace"))
        if content and not content.endswith(b"\n"):
            self._write("\n")

    def name(self, stems: Mapping[str, str]) -> None:
        """Remember the names of inputs, before anything is written under them."""
        new = {one: stem for one, stem in stems.items() if self.remembered.stems.get(one) != stem}
        self._write("".join(json.dumps({"input": one, "stem": stem}) + "\n" for one, stem in new.items()))

    def finished(self, input_: str, key_: str, output: str) -> None:
        """Remember an output that is in place."""
        self._write(json.dumps({"input": input_, "key": key_, "output": output}) + "\n")

    def _write(self, text: str) -> None:
        self._file.write(text.encode())
        self._file.flush()

    def close(self) -> None:
        """Let the next one write."""
        with contextlib.suppress(OSError):
            self._file.close()
