"""How documents are defined: as structs, or derived from a view or record of the mesh. Pure.

A derived document has the fields of its source, so each field and its description are written once, where the mesh
defines them. `api.documents.schemas` makes the JSON schemas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

#: A field of a view or record that ends in this holds Unix seconds, 0 for none; its document holds RFC 3339.
TIME_SUFFIX = "_at"
Time = Annotated[str | None, Meta(description="RFC 3339, UTC; null when it has not come yet")]


class Document(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of documents whose schemas allow no other fields."""


class OpenDocument(Struct, frozen=True):
    """Base of documents that may have fields which their schemas do not name."""


#: RFC 3339 has years of four digits. Unix seconds.
YEAR_10000 = 253_402_300_800.0


def rfc3339(at: float) -> str | None:
    """Unix seconds as RFC 3339 in UTC, to the millisecond; None for 0, and for what is no time of this calendar."""
    if not 0 < at < YEAR_10000:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def derive(
    name: str,
    source: type,
    *,
    without: Collection[str] = (),
    absent: Collection[str] = (),
    replace: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    is_request: bool = False,
) -> type[Struct]:
    """A document type with the fields of `source`, a dataclass or struct. Times become RFC 3339.

    `without`: fields that the document does not have; `absent`: fields that may be missing; `replace`: field -> its
    type in the document; `more`: field -> type of fields that `source` does not have. In a request the defaults of
    `source` hold; in an answer every field that is not `absent` is required.
    """
    hints = get_type_hints(source, include_extras=True)
    kinds: dict[str, Any] = {
        field: Time if field.endswith(TIME_SUFFIX) else hints[field]
        for field in _fields(source)
        if field not in without
    }
    kinds.update(replace or {})
    kinds.update(more or {})
    defaults = _defaults(source) if is_request else {}
    fields: list[Any] = [
        (field, kind | UnsetType, UNSET) if field in absent else (field, kind, *defaults.get(field, ()))
        for field, kind in kinds.items()
    ]
    namespace = {"__doc__": source.__doc__, "__source__": source}
    return msgspec.defstruct(
        name, fields, bases=(Document,), kw_only=True, frozen=True, module=__name__, namespace=namespace
    )


def fill(document: type[Struct], source: object, **values: Any) -> Struct:
    """A derived document of `source`; `values`: fields that are not copied from it, UNSET leaves a field out."""
    for field in document.__struct_fields__:
        if field not in values:
            value = getattr(source, field)
            values[field] = rfc3339(value) if field.endswith(TIME_SUFFIX) else value
    return document(**values)


def _defaults(source: type) -> dict[str, tuple[Any]]:
    """field -> its default, in a tuple."""
    found: dict[str, tuple[Any]] = {}
    for field in dataclasses.fields(source):
        if field.default is not dataclasses.MISSING:
            found[field.name] = (field.default,)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = (msgspec.field(default_factory=field.default_factory),)
    return found


def _fields(source: type) -> tuple[str, ...]:
    if issubclass(source, Struct):
        return source.__struct_fields__
    return tuple(field.name for field in dataclasses.fields(source))
