"""The inputs of `map`: files that are named, and those in folders that are named. What is left out is counted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from api.cli.batch import journal
from api.cli.output.formatting import counted

#: Why something in a folder is no input -> the phrase for one of them, the phrase for several, what helps.
LEFT_OUT = {
    "folders": ("subfolder", "subfolders", "--recursive takes its files"),
    "linked_folders": ("link to a folder", "links to folders", "name it to take its files"),
    "dead_links": ("link to nothing", "links to nothing", ""),
    "special": ("pipe, socket or device", "pipes, sockets or devices", ""),
    "unreadable": ("subfolder that can't be read", "subfolders that can't be read", ""),
    "hidden": ("hidden file", "hidden files", ""),
    "outputs": ("output of another `queztl map`", "outputs of another `queztl map`", "name it to take it"),
}


@dataclass
class Found:
    """What was found."""

    files: dict[str, str] = field(default_factory=dict)
    """absolute path of each input, once -> the folder of its output, below the output folder ("": itself)"""
    left_out: Counter[str] = field(default_factory=Counter)
    """key of LEFT_OUT -> how many"""


def find_inputs(paths: Iterable[Path], home: Path, recursive: bool = False) -> Found:
    """The inputs that `paths` name; of a folder its files in order, with `recursive` those of its subfolders too.

    `home`: the output folder, which is not searched when it is below one of `paths`. Hidden files, links to folders and
    what other runs of `map` wrote are left out where they are not named. Raises: BadInput that names every fault.
    """
    from mesh.errors import BadInput, Fault

    found = Found()
    faults: list[Fault] = []
    for path in paths:
        problem = _problem(path)
        if problem:
            faults.append(Fault(str(path), problem))
        elif path.is_dir():
            for folder, below in _folders(os.path.abspath(path), home, recursive, found):
                found.files.setdefault(folder, below)
        else:
            found.files.setdefault(os.path.abspath(path), "")
    if faults:
        raise BadInput("some FILEs can't be used", tuple(faults))
    return found


def _problem(path: Path) -> str:
    """Why a FILE can't be used; "" for none."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            return ""
        return "" if stat.S_ISREG(mode) else "is no regular file"
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _folders(top: str, home: Path, recursive: bool, found: Found) -> Iterator[tuple[str, str]]:
    """(path, folder below `top`) of every file that is an input; the rest is counted in `found`."""
    waiting, outputs = [(top, "")], set[str]()
    while waiting:
        folder, below = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            if folder == top:
                raise
            found.left_out["unreadable"] += 1
            continue
        outputs |= journal.outputs_of(folder) if below else set()
        inner = []
        for entry in entries:
            what = _what(entry, home)
            if what == "folder" and recursive:
                inner.append((entry.path, os.path.join(below, entry.name)))
            elif what == "file" and entry.path not in outputs:
                yield entry.path, below
            elif what:
                found.left_out[{"folder": "folders", "file": "outputs"}.get(what, what)] += 1
        waiting += reversed(inner)


def _what(entry: os.DirEntry[str], home: Path) -> str:
    """file, folder, a key of LEFT_OUT, or "" for what `map` itself keeps there."""
    try:
        if entry.is_dir():
            if home.exists() and os.path.samefile(entry.path, home):
                return ""
            return "linked_folders" if entry.is_symlink() else "hidden" if entry.name.startswith(".") else "folder"
        if entry.name.startswith("."):
            return "" if journal.is_own(entry.name) else "hidden"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:  # also a link to itself
        return "dead_links" if entry.is_symlink() else "special"
    return "special"


def explained(left_out: Counter[str]) -> str:
    """What was left out, as a sentence; "" for nothing. Pure."""
    parts = []
    for reason, (one, many, help_) in LEFT_OUT.items():
        if count := left_out[reason]:
            what = counted(count, one) if count == 1 else f"{count} {many}"
            parts.append(f"{what} ({help_})" if help_ else what)
    return f"left out: {', '.join(parts)}" if parts else ""
