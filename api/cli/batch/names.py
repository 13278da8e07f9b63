"""Which output name each input gets, and which field of a payload takes the file. Pure.

Two inputs never share a name, and an input keeps the name it was once given: outputs of one run are not
overwritten by the next one's.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.kinds.base import KindSpec

#: File systems take 255 bytes; an extension, a number and a draft's marks must fit too.
MAX_STEM_BYTES = 180


def allot(inputs: Sequence[str], known: Mapping[str, str], foreign: Iterable[str]) -> dict[str, str]:
    """A stem for each of `inputs` (absolute paths, each once).

    `known`: input -> stem from earlier runs, kept. `foreign`: names of files that are in the folder; the stems of
    those that are not ours are not used. A stem in use gets its folder's name before it, then a number. Upper and
    lower case count as the same: on some file systems they are.
    """
    taken = {stem.casefold() for stem in known.values()} | {PurePath(name).stem.casefold() for name in foreign}
    names: dict[str, str] = {}
    for one in inputs:
        if one in known:
            names[one] = known[one]
            continue
        path = PurePath(one)
        stem = next(stem for stem in _candidates(path) if stem.casefold() not in taken)
        taken.add(stem.casefold())
        names[one] = stem
    return names


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
    return stem.encode(errors="surrogateescape")[:MAX_STEM_BYTES].decode(errors="ignore") or "output"


def data_fields(spec: KindSpec) -> tuple[str, ...]:
    """The fields of a kind's payload that take a file, in the order of their declaration."""
    return tuple(name for name, field in spec.payload.model_fields.items() if _takes_file(field.annotation))


def _takes_file(annotation: Any) -> bool:
    from mesh.kinds.base import BlobInput

    if typing.get_origin(annotation) in (dict, tuple, list):
        return False  # many files to a task: one a task is no such thing, and says nothing of the names
    return annotation is BlobInput or any(_takes_file(one) for one in typing.get_args(annotation))


def file_field(spec: KindSpec, wanted: str | None) -> str:
    """The field that takes each file. Raises: BadInput."""
    from mesh.errors import BadInput

    fields = data_fields(spec)
    if not fields:
        raise BadInput(f"{spec.name} takes no files; use `queztl submit {spec.name}`")
    if wanted is not None and wanted not in fields:
        raise BadInput(f"{spec.name} takes files in {', '.join(fields)}, not in {wanted!r}")
    return wanted or fields[0]
