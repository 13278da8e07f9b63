"""How many messages a queue should hold after its server was killed, from the files of its messages.

A server that is killed leaves no index, and says nothing of files that are empty or gone (nats-server 2.15.1). But each
message that is taken from a queue leaves a tombstone in the newest file. So what was there at a mark, plus what was
stored after it, minus the tombstones after it, must still be there.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

_BLOCK, _CONFIG = ".blk", "meta.inf"
#: A record: its length with a flag, its sequence with flags, its time, the length of its subject; then its data, and a
#: checksum of eight bytes.
_RECORD = struct.Struct("<IQqH")
_CHECKSUM_BYTES, _LENGTH_BITS = 8, (1 << 31) - 1
_ERASED, _TOMBSTONE = 1 << 63, 1 << 62
#: So much may have been written after the mark, two seconds before the kill, bytes; more is not read.
_READ_MAX = 1 << 30


class Mark(NamedTuple):
    """Where the files of a stream end."""

    block: int
    """Number of the newest file."""
    size_bytes: int
    """Its size."""
    blocks: int
    """How many files there are."""


class Queued(NamedTuple):
    """What a queue should hold."""

    messages: int
    tolerance: int
    """So many fewer prove nothing: a file that was removed with its last message leaves no tombstone for that one."""


def mark(stream: Path) -> Mark | None:
    """The mark of the stream in this folder; None when it is no queue, or can't be read. Blocks."""
    try:
        config = json.loads((stream / _CONFIG).read_bytes())
        if config.get("retention") != "workqueue" or config.get("max_age") or config.get("allow_msg_ttl"):
            return None  # messages may end without a tombstone
        blocks = _blocks(stream)
        newest = max(blocks)
        return Mark(newest, blocks[newest], len(blocks))
    except (OSError, ValueError, AttributeError):
        return None


def queued(stream: Path, before: Mark, messages: int, last: int) -> Queued | None:
    """What the queue in this folder should hold that held `messages`, up to the sequence `last`, at the mark `before`.

    None when its files don't tell. Blocks; call it before the server is started.
    """
    try:
        blocks = _blocks(stream)
        newer = range(before.block, max(blocks) + 1)
        if not blocks.keys() >= {*newer} or blocks[before.block] < before.size_bytes:
            return None  # a file that is gone took its tombstones along
        if sum(blocks[number] for number in newer) - before.size_bytes > _READ_MAX:
            return None
        newest, removed = last, set[int]()
        for number in newer:
            with (stream / "msgs" / f"{number}{_BLOCK}").open("rb") as file:
                file.seek(before.size_bytes if number == before.block else 0)
                for sequence in _records(file, blocks[number]):
                    if sequence & _TOMBSTONE:
                        removed.add(sequence & ~_TOMBSTONE)
                    elif not sequence & _ERASED:
                        newest = max(newest, sequence)
        gone = before.blocks - sum(number <= before.block for number in blocks)
        return Queued(messages + newest - last - len(removed), max(0, gone))
    except (OSError, ValueError):
        return None


def _blocks(stream: Path) -> dict[int, int]:
    """Number -> size of each file of messages."""
    with os.scandir(stream / "msgs") as entries:
        files = [entry for entry in entries if entry.name.endswith(_BLOCK)]
        return {int(entry.name.removesuffix(_BLOCK)): entry.stat().st_size for entry in files}


def _records(file: IO[bytes], size_bytes: int) -> Iterator[int]:
    """The sequences of the records from here on, with their flags. Raises: ValueError for what is no record."""
    at = file.tell()
    while at + _RECORD.size <= size_bytes:
        length, sequence, _, subject = _RECORD.unpack(file.read(_RECORD.size))
        length &= _LENGTH_BITS
        if length < _RECORD.size + subject + _CHECKSUM_BYTES:
            raise ValueError(f"no record at {at} of {file.name}")
        at += length
        if at <= size_bytes:  # else the server was killed while it wrote
            yield sequence
            file.seek(at)
