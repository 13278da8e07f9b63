"""What the store of a bus server should hold when its server starts, and what it holds then: how much was lost.

nats-server repairs a damaged store silently: it cuts a broken file after its last whole message and starts with what
is left (2.15.1). So the state is compared with two earlier ones: the index that the server wrote when it ended in
order, and a ledger of its last sequences, written while it runs. Either may be missing. After a kill, the files of a
queue tell more (`queue_blocks.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh import subjects
from mesh.bus.server.config import MESH_ACCOUNT
from mesh.bus.server.process import tail
from mesh.bus.server.queue_blocks import Mark, Queued, mark, queued

_LEDGER = "ledger.json"
_INDEX, _BLOCKS, _CONFIG = "index.db", "*.blk", "meta.inf"
#: The first bytes of an index that this code can read: `fullStateMagic`, and the versions up to `fullStateVersion`.
_MAGIC, _VERSIONS = 11, range(1, 5)
_ENDED, _STARTED = "Server Exiting", "Starting nats-server"
#: A server that ends writes its indexes within this, seconds.
_SHUTDOWN_S = 15.0
#: A copy that lacks messages gets them from the others; it counts as lost only after this long, seconds.
CATCH_UP_S = 60.0
#: A server is not asked for the details of a stream with more gaps than this: its answer lists them all.
GAPS_MAX = 100_000
#: How long a loss is reported, seconds.
REPORT_LOSS_S = 24 * 3600.0


@dataclass(frozen=True)
class Position:
    """The state of a stream as the ledger has it."""

    created: str
    """When the stream was created: another stream of the same name is another one."""
    messages: int
    last: int
    first: int = 0
    """0 in ledgers of earlier versions."""
    mark: Mark | None = None
    """Where the files of a queue ended."""

    @property
    def gaps(self) -> int:
        """How many sequences between the first and the last message have none."""
        return self.last - self.first + 1 - self.messages if self.first and self.messages else 0


@dataclass(frozen=True)
class Index:
    """The state of a stream as its server wrote it when it ended normally."""

    messages: int
    size_bytes: int
    on_disk_bytes: int
    """What its files hold now."""
    expires: bool
    """Whether messages of this stream expire, also while no server runs."""


@dataclass(frozen=True)
class Expected:
    """What the store should hold."""

    indexes: Mapping[str, Index] = field(default_factory=dict)
    ledger: Mapping[str, Position] = field(default_factory=dict)
    queues: Mapping[str, Queued] = field(default_factory=dict)
    """What the files of a queue say, where there is no index."""
    losses: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Stream -> (messages that were found lost earlier, the Unix time when)."""


def expected(folder: Path, server_name: str) -> Expected:
    """What the store in `folder` should hold. Blocks; call it before the server is started."""
    ledger, losses = _read_ledger(folder, server_name)
    log = [line for line in tail(folder / "server.log") if _ENDED in line or _STARTED in line]
    indexes: dict[str, Index] = {}
    if log and _ENDED in log[-1]:  # otherwise the indexes are older than the messages
        ended_at = (folder / "server.log").stat().st_mtime
        for stream in streams_of(folder).glob("*"):
            if (index := _read_index(stream, ended_at)) is not None:
                indexes[stream.name] = index
    queues = {
        name: found
        for name, position in ledger.items()
        if position.mark is not None
        and name not in indexes
        and subjects.is_token(name)
        and (found := queued(streams_of(folder) / name, position.mark, position.messages, position.last)) is not None
    }
    return Expected(indexes, ledger, queues, losses)


def streams_of(folder: Path) -> Path:
    """Where the streams of a bus server in `folder` are: a folder for each."""
    return folder / "store" / "jetstream" / MESH_ACCOUNT / "streams"


def read_marks(folder: Path) -> dict[str, Mark]:
    """The mark of each queue. Blocks; read it before the server is asked for the positions, so that no message that is
    counted as taken later left its tombstone before."""
    return {stream.name: found for stream in streams_of(folder).glob("*") if (found := mark(stream)) is not None}


def _read_index(stream: Path, ended_at: float) -> Index | None:
    """The index of a stream, if the server wrote it when it ended at `ended_at`, Unix time."""
    try:
        file = stream / "msgs" / _INDEX
        data = file.read_bytes()[:64]
        config = json.loads((stream / _CONFIG).read_bytes())
        on_disk = sum(block.stat().st_size for block in (stream / "msgs").glob(_BLOCKS))
        written_s = ended_at - file.stat().st_mtime
        if data[0] != _MAGIC or data[1] not in _VERSIONS or written_s > _SHUTDOWN_S:
            return None
        messages, size_bytes = _numbers(data[2:], 2)
        return Index(messages, size_bytes, on_disk, bool(config.get("max_age")))
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _numbers(data: bytes, count: int) -> list[int]:
    """The first `count` numbers, seven bits a byte. Raises: IndexError."""
    found: list[int] = []
    position = 0
    for _ in range(count):
        number = shift = 0
        while True:
            byte = data[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append(number)
    return found


def lost_at_start(before: Expected, restored: Mapping[str, int]) -> dict[str, int]:
    """Stream -> messages that were lost while the server was down; `restored`: what its log says it found. Pure."""
    found: dict[str, int] = {}
    for stream, index in before.indexes.items():
        if stream not in restored or restored[stream] >= index.messages:
            continue
        # Where messages expire, fewer of them prove nothing; fewer bytes than the messages need do.
        if not index.expires or index.on_disk_bytes < index.size_bytes:
            found[stream] = index.messages - restored[stream]
    for stream, queue in before.queues.items():
        if stream in restored and restored[stream] < queue.messages - queue.tolerance:
            found[stream] = queue.messages - restored[stream]
    return found


def lost_tails(before: Mapping[str, Position], now: Mapping[str, Position]) -> dict[str, int]:
    """Stream -> messages that are missing at its end: sequences never go back. Pure."""
    return {
        stream: min(max(1, earlier.messages), earlier.last - now[stream].last)
        for stream, earlier in before.items()
        if stream in now and now[stream].created == earlier.created and now[stream].last < earlier.last
    }


def widened(before: Mapping[str, Position], now: Mapping[str, Position]) -> dict[str, int]:
    """Stream -> how many more of its sequences have no message than when the ledger was written. Pure.

    Messages that were acknowledged just before the server ended leave such gaps, too: only what the server says of its
    files tells whether any was lost, see `lost_bytes`.
    """
    return {
        stream: now[stream].gaps - earlier.gaps
        for stream, earlier in before.items()
        if stream in now
        and earlier.first
        and now[stream].created == earlier.created
        and now[stream].last >= earlier.last
        and earlier.gaps < now[stream].gaps <= GAPS_MAX
    }


def lost_bytes(info: Mapping[str, Any]) -> int:
    """How many damaged bytes the server dropped at its start, from the answer to STREAM.INFO with the details of the
    deleted messages: it says so nowhere else (2.15.1), and not of files that are empty or gone. Pure."""
    return int(((info.get("state") or {}).get("lost") or {}).get("bytes") or 0)


def positions(jsz: Mapping[str, Any], marks: Mapping[str, Mark]) -> dict[str, Position]:
    """The state of each stream, from the answer to JSZ with `streams`, and the marks that were read before. Pure."""
    return {
        str(stream["name"]): Position(
            str(stream.get("created", "")),
            int(stream["state"]["messages"]),
            int(stream["state"]["last_seq"]),
            int(stream["state"].get("first_seq", 0)),
            marks.get(str(stream["name"])),
        )
        for account in jsz.get("account_details") or ()
        for stream in account.get("stream_detail") or ()
    }


_RESTORED = re.compile(rf"Restored ([\d,]+) messages for stream '{MESH_ACCOUNT} > ([^']+)'")


def restored_in(lines: Iterable[str]) -> dict[str, int]:
    """Stream -> messages that the server found at its start, from lines of its log. Pure."""
    matches = (match for line in lines if (match := _RESTORED.search(line)))
    return {match[2]: int(match[1].replace(",", "")) for match in matches}


# --- the ledger ------------------------------------------------------------------------------------


def _read_ledger(folder: Path, server_name: str) -> tuple[dict[str, Position], dict[str, tuple[int, float]]]:
    try:
        stored = json.loads((folder / _LEDGER).read_bytes())
        if stored["server"] != server_name:
            return {}, {}
        found = {
            str(name): Position(str(created), *map(int, numbers[:3]), mark=_mark(numbers[3:]))
            for name, (created, *numbers) in stored["streams"].items()
        }
        losses = {str(name): (int(messages), float(at)) for name, (messages, at) in stored["lost"].items()}
        return found, {name: loss for name, loss in losses.items() if 0 <= time.time() - loss[1] < REPORT_LOSS_S}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {}, {}


def _mark(stored: list[Any]) -> Mark | None:
    return Mark(*map(int, stored[0])) if stored and stored[0] else None


def write_ledger(
    folder: Path, server_name: str, streams: Mapping[str, Position], losses: Mapping[str, tuple[int, float]]
) -> None:
    """Keep the ledger. Blocks; a disk that takes no write keeps the older one.

    It is not flushed to the disk: after a power cut an older one proves less, and nothing wrong.
    """
    held = {
        name: [position.created, position.messages, position.last, position.first, position.mark]
        for name, position in streams.items()
    }
    draft = folder / f".{_LEDGER}.new"
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps({"server": server_name, "streams": held, "lost": dict(losses)}))
        os.replace(draft, folder / _LEDGER)
