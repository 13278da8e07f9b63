"""Key-value buckets, on the JetStream API itself.

nats-py's KeyValue has pitfalls that this avoids: `update` without a TTL, `None` in place of the marker of an expired
key, a watcher that is deaf for 15 s after a server restart. Here a marker means "absent", `get` asks the leader, and a
watch is a subscription whose every hint is followed by a read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from mesh.bus import reserved
from mesh.bus.connection import Subscription
from mesh.bus.errors import KeyExists, WrongSequence
from mesh.bus.jetstream import JetStream
from mesh.bus.pages import read_page
from mesh.bus.replies import StoredMessage, unix_seconds


class Entry(NamedTuple):
    """A key's value, the revision it was written with, and when."""

    key: str
    value: bytes
    revision: int
    timestamp: str = ""
    """When it was written, by the server's clock: RFC 3339 with nanoseconds; "" where that was not asked."""

    @property
    def stored_at(self) -> float:
        """`timestamp` as Unix seconds."""
        return unix_seconds(self.timestamp)


class Kv:
    """One bucket. Every method raises BusUnavailable when the bus does not answer."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._jetstream, self.bucket = jetstream, bucket
        self._stream = f"KV_{bucket}"
        self._prefix = reserved.key_subject(bucket, "")

    async def get(self, key: str, absent_s: float = math.inf) -> Entry | None:
        """The newest value, as the bucket's leader knows it; None when there is none, or it was deleted.

        `absent_s`: how long to wait for a bucket that does not exist.
        """
        last = await self._jetstream.read_last(self._stream, self._prefix + key, absent_s)
        return Entry(key, last.data, last.sequence, last.timestamp) if last is not None and _has_value(last) else None

    async def put(self, key: str, value: bytes, ttl_s: float = 0) -> int:
        """Write unconditionally; returns the revision."""
        return await self._jetstream.store(self._prefix + key, value, ttl_s=ttl_s, resend=True)

    async def create(self, key: str, value: bytes, ttl_s: float = 0) -> int:
        """Write only if there is no value; returns the revision. Raises: KeyExists."""
        subject, last_sequence = self._prefix + key, 0
        try:
            return await self._jetstream.store(subject, value, expect_last=0, ttl_s=ttl_s)
        except WrongSequence:
            last = await self._jetstream.read_last(self._stream, subject)
            if last is not None:
                if _has_value(last):
                    raise KeyExists(f"{key} exists already") from None
                # The last message is a marker of deletion or expiry: write over exactly that one.
                last_sequence = last.sequence
        try:
            return await self._jetstream.store(subject, value, expect_last=last_sequence, ttl_s=ttl_s)
        except WrongSequence:
            raise KeyExists(f"{key} exists already") from None

    async def update(self, key: str, value: bytes, last: int, ttl_s: float = 0) -> int:
        """Write only over revision `last`; returns the new revision. Raises: WrongSequence."""
        return await self._jetstream.store(self._prefix + key, value, expect_last=last, ttl_s=ttl_s)

    async def delete(self, key: str, last: int | None = None, marker_ttl_s: float = 0) -> None:
        """Remove the key; with `last` only that revision. Raises: WrongSequence.

        The marker of the deletion is kept for `marker_ttl_s`; 0: as long as the bucket keeps its values.
        """
        headers = {"KV-Operation": "DEL"}
        await self._jetstream.store(self._prefix + key, b"", expect_last=last, ttl_s=marker_ttl_s, headers=headers)

    async def keys(self) -> list[str]:
        """The keys that have a value."""
        return [entry.key for entry in await self.entries()]

    async def keys_at_leader(self, under: str) -> list[str]:
        """The keys under the pattern `under` as the bucket's leader knows them, deleted ones included.

        Any copy answers `entries`, and one that lags does not have the newest keys yet. Raises: ApiError.
        """
        info = await self._jetstream.stream_info(self._stream, self._prefix + under)
        return [subject.removeprefix(self._prefix) for subject in info.subjects]

    async def entries(self, under: str = ">") -> list[Entry]:
        """The newest value of every key (under the pattern `under`)."""
        return [entry for entry in await self.changes(under=under) if entry.value]

    async def changes(self, after: int = 0, under: str = ">") -> list[Entry]:
        """The newest entry of each key whose newest revision is above `after`, the oldest first.

        A deleted or expired key has an empty value. Any copy answers, and one that lags may not have the newest entries
        yet. Read page by page: the server refuses to read all last values at once past 1,024 keys (413).
        """
        found: dict[str, Entry] = {}
        while True:
            page, more = await self._page(after, under)
            for entry in page:
                # A key written again between two pages is also in a later page.
                found.pop(entry.key, None)
                found[entry.key] = entry
            if not page or not more:
                return list(found.values())
            after = page[-1].revision

    async def _page(self, after: int, under: str) -> tuple[list[Entry], bool]:
        """(the next entries after revision `after`, whether there are more)"""
        page, more = await read_page(self._jetstream, self._stream, self._prefix + under, after)
        return [self._entry(stored) for stored in page], more

    async def history(self, key: str) -> list[Entry]:
        """All values of a key that the bucket keeps, the oldest first, as its leader knows them. Raises: ApiError."""
        found: list[Entry] = []
        start = 1
        while (stored := await self._jetstream.read_next(self._stream, self._prefix + key, start)) is not None:
            if _has_value(stored):
                found.append(self._entry(stored))
            start = stored.sequence + 1
        return found

    def _entry(self, stored: StoredMessage) -> Entry:
        value = b"" if stored.is_marker else stored.data
        return Entry(stored.subject[len(self._prefix) :], value, stored.sequence, stored.timestamp)

    async def watch(self, changed: Callable[[str], None]) -> Subscription:
        """Call `changed(key)` whenever somebody writes a key: a hint, to be followed by a read.

        Hints are lost while the connection is down: read `entries()` again in `on_back`.
        """
        return await self.watch_writes(lambda key, _: changed(key))

    async def watch_writes(self, written: Callable[[str, bytes], None]) -> Subscription:
        """Call `written(key, value)` for each attempt to write, also for those that the bucket refuses.

        For values that carry their own order. Otherwise as `watch`.
        """
        start = len(self._prefix)
        return await self._jetstream.subscribe(
            f"{self._prefix}>", lambda message: written(message.subject[start:], message.data)
        )


def _has_value(stored: StoredMessage) -> bool:
    return bool(stored.data) and not stored.is_marker
