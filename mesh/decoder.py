"""A decoder of one wire type, and how the records of a KV bucket are read with it.

A decoder returns the value, or `Unreadable` with the reason; it never raises. Pure, except that an ignored record is
logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

log = logging.getLogger(__name__)

Value = TypeVar("Value")

#: How many (key, revision) pairs of ignored records are remembered, so that each is logged once.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why bytes are not a valid value."""

    reason: str


class Decoder(Generic[Value]):
    """The decoder of one wire type: `decoder(data)` returns the value or `Unreadable`."""

    __slots__ = ("_decode", "_fault", "name")

    def __init__(self, type_: Any, name: str, fault: Callable[[Value], str] | None = None, json: bool = False) -> None:
        """`name`: what people call it; `fault(value)`: why the value may not be used, "" when it may."""
        module = msgspec.json if json else msgspec.msgpack
        self._decode: Callable[[bytes | msgspec.Raw], Value] = module.Decoder(type_).decode
        self._fault, self.name = fault, name

    def __call__(self, data: bytes | msgspec.Raw) -> Value | Unreadable:
        """The value, or why there is none."""
        try:
            value = self._decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            # Text that is not UTF-8 raises UnicodeDecodeError, which is a ValueError and no MsgspecError.
            return Unreadable(f"is not a {self.name}: {error}")
        if self._fault is not None and (fault := self._fault(value)):
            return Unreadable(f"is not a valid {self.name}: {fault}")
        return value


class Record(Protocol):
    """An entry of a KV bucket."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def value(self) -> bytes:
        """Its value, encoded."""

    @property
    def revision(self) -> int:
        """The revision with which the value was written."""


_ignored: dict[tuple[str, str, int], None] = {}


def readable(decode: Decoder[Value], entry: Record | None) -> Value | None:
    """The value of a KV record; None when there is none, or it can't be read, which is logged once per revision."""
    if entry is None or not entry.value:
        return None
    found = decode(entry.value)
    if not isinstance(found, Unreadable):
        return found
    ignored = (decode.name, entry.key, entry.revision)
    if ignored not in _ignored:
        while len(_ignored) >= REMEMBERED:
            del _ignored[next(iter(_ignored))]
        _ignored[ignored] = None
        log.warning(
            "the record %s (revision %d) can't be read and is ignored: it %s", entry.key, entry.revision, found.reason
        )
    return None


def readable_of(decode: Decoder[Value], entries: Iterable[Record]) -> list[Value]:
    """The values of those records that can be read."""
    return [found for entry in entries if (found := readable(decode, entry)) is not None]
