"""The output name of each input, and the payload field that takes the file. Pure.

Two inputs never share a name, and an input keeps its name: no run overwrites the outputs of another one.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.kinds.base import KindSpec

#: File names have at most 255 bytes; the extension, a number and the marks of a draft must fit too.
MAX_STEM_BYTES = 180


def allot(inputs: Mapping[str, str], known: Mapping[str, str], foreign: Iterable[str]) -> dict[str, str]:
    """A stem for each of `inputs`: absolute path -> folder of its output, "" for the output folder itself.

    A stem includes that folder. `known`: input -> stem from earlier runs, kept. `foreign`: files in the output folder,
    relative to it; their stems are not used. When a stem is taken, the name of the input's folder is put before it,
    then a number after it. Case is ignored, because some file systems ignore it.
    """
    taken = {stem.casefold() for stem in known.values()} | {stem_of(name).casefold() for name in foreign}
    names: dict[str, str] = {}
    for path, folder in inputs.items():
        if path in known:
            names[path] = known[path]
            continue
        candidates = (os.path.join(folder, name) for name in _candidates(PurePath(path)))
        stem = next(stem for stem in candidates if stem.casefold() not in taken)
        taken.add(stem.casefold())
        names[path] = stem
    return names


def stem_of(name: str) -> str:
    """A relative path without its last extension."""
    return os.path.join(os.path.dirname(name), PurePath(name).stem)


def _candidates(path: PurePath) -> Iterable[str]:
    stem = _short(path.stem.lstrip(".") or "output")
    yield stem
    folder = path.parent.name
    longer = _short(f"{folder}-{stem}") if folder else stem
    yield longer
    number = 2
    while True:
        yield f"{longer}-{number}"
        number += 1


def _short(stem: str) -> str:
    """`stem`, with its own bytes where it is not UTF-8, cut between two characters."""
    encoded = os.fsencode(stem)
    if len(encoded) <= MAX_STEM_BYTES:
        return stem
    cut = MAX_STEM_BYTES
    while cut > MAX_STEM_BYTES - 4 and encoded[cut] & 0xC0 == 0x80:  # inside a character
        cut -= 1
    return os.fsdecode(encoded[:cut]) or "output"


def data_fields(spec: KindSpec) -> tuple[str, ...]:
    """The fields of a kind's payload that take a file, in the order of their declaration."""
    return tuple(name for name, field in spec.payload.model_fields.items() if _takes_file(field.annotation))


def _takes_file(annotation: Any) -> bool:
    from mesh.kinds.base import BlobInput

    if typing.get_origin(annotation) in (dict, tuple, list):
        return False  # takes many files, but `map` makes a task of each file
    return annotation is BlobInput or any(_takes_file(choice) for choice in typing.get_args(annotation))


def file_field(spec: KindSpec, requested: str | None) -> str:
    """The field that takes each file: `requested`, or the first that can. Raises: BadInput."""
    from mesh.errors import BadInput

    fields = data_fields(spec)
    if not fields:
        raise BadInput(f"{spec.name} takes no files; use `queztl submit {spec.name}`")
    if requested is not None and requested not in fields:
        raise BadInput(f"{spec.name} takes files in {', '.join(fields)}, not in {requested!r}")
    return requested or fields[0]
