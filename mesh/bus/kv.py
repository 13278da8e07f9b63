"""Key-value buckets, on the JetStream API itself.

nats-py's KeyValue has traps this avoids: `update` without TTL, values that are None over an expiry marker, a
watcher deaf for 15 s after a server restart. Here a marker is "absent", reads can be made at the leader, and
a watch is a subscription whose every hint is followed by a read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mesh.bus.errors import MESSAGE_NOT_FOUND, ApiError, KeyExists, WrongSequence
from mesh.bus.pages import Stored, read_page

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Subscription


class Entry(NamedTuple):
    """A key's value and the revision it was written with."""

    key: str
    value: bytes
    revision: int


class Kv:
    """One bucket. Every method raises BusUnavailable when the bus does not answer."""

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus, self.bucket = bus, bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."

    async def get(self, key: str) -> Entry | None:
        """The newest value as the bucket's leader knows it; None when there is none (or it was deleted)."""
        found = await self._last(key)
        return None if found is None or found[1] else found[0]

    async def _last(self, key: str) -> tuple[Entry, bool] | None:
        """(entry, whether it is a marker of deletion)"""
        try:
            answer = await self._bus.api(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key})
        except ApiError as error:
            if error.error_code == MESSAGE_NOT_FOUND:
                return None
            raise
        message = answer["message"]
        value = base64.b64decode(message.get("data", ""))
        headers = base64.b64decode(message.get("hdrs", ""))
        return Entry(key, value, int(message["seq"])), is_marker(headers) or not value

    async def put(self, key: str, value: bytes, ttl_s: float = 0) -> int:
        """Write, whatever was there; returns the revision."""
        return await self._bus.store(self._prefix + key, value, ttl_s=ttl_s, resend=True)

    async def create(self, key: str, value: bytes, ttl_s: float = 0) -> int:
        """Write only if there is no value. Raises: KeyExists."""
        try:
            return await self._bus.store(self._prefix + key, value, expect_last=0, ttl_s=ttl_s)
        except WrongSequence:
            found = await self._last(key)
            if found is not None and not found[1]:
                raise KeyExists(f"{key} exists already") from None
        try:
            # A marker of deletion or expiry is the subject's last message: create over exactly that one.
            last = found[0].revision if found else 0
            return await self._bus.store(self._prefix + key, value, expect_last=last, ttl_s=ttl_s)
        except WrongSequence:
            raise KeyExists(f"{key} exists already") from None

    async def update(self, key: str, value: bytes, last: int, ttl_s: float = 0) -> int:
        """Write only over revision `last`. Raises: WrongSequence."""
        return await self._bus.store(self._prefix + key, value, expect_last=last, ttl_s=ttl_s)

    async def delete(self, key: str, last: int | None = None) -> None:
        """Remove the key, if `last` is given only that revision. Raises: WrongSequence."""
        await self._bus.store(self._prefix + key, b"", expect_last=last, headers={"KV-Operation": "DEL"})

    async def keys(self) -> list[str]:
        """The keys that have a value."""
        return [entry.key for entry in await self.entries()]

    async def entries(self, under: str = ">") -> list[Entry]:
        """The newest value of every key (under the pattern `under`)."""
        return [entry for entry in await self.changes(under=under) if entry.value]

    async def changes(self, after: int = 0, under: str = ">") -> list[Entry]:
        """What was last written to each key whose newest revision is above `after`, the oldest first.

        A key that was deleted or ran out is there with an empty value. Any copy answers, and one that lags may not
        know of the newest yet. Read page by page: a read of all last values at once is refused past 1,024 keys (413).
        """
        found: dict[str, Entry] = {}
        while True:
            page, left = await self._page(after, under)
            for entry in page:
                # Written again between two pages: the later one comes in a later page.
                found.pop(entry.key, None)
                found[entry.key] = entry
            if not page or not left:
                return list(found.values())
            after = page[-1].revision

    async def _page(self, after: int, under: str) -> tuple[list[Entry], bool]:
        """(the next entries after revision `after`, whether there are more)"""
        page, left = await read_page(self._bus, self._stream, self._prefix + under, after)
        return [self._entry(stored) for stored in page], left

    def _entry(self, stored: Stored) -> Entry:
        gone = stored.headers.get("KV-Operation") or stored.headers.get("Nats-Marker-Reason")
        return Entry(stored.subject[len(self._prefix) :], b"" if gone else stored.data, stored.sequence)

    async def watch(self, changed: Callable[[str], None]) -> Subscription:
        """`changed(key)` is called whenever somebody writes a key: a hint, to be followed by a read.

        Hints are lost while the connection is: read `entries()` again in the bus's `on_back`.
        """
        return await self.hear(lambda key, _: changed(key))

    async def hear(self, said: Callable[[str, bytes], None]) -> Subscription:
        """`said(key, value)` is called with what somebody wants to write, also when the bucket refuses it: for values
        that carry their own order. Otherwise as `watch`."""
        start = len(self._prefix)
        return await self._bus.subscribe(
            f"{self._prefix}>", lambda message: said(message.subject[start:], message.data)
        )


def is_marker(headers: bytes) -> bool:
    """Whether a stored message only says that its key is gone (deleted, purged or expired)."""
    return b"KV-Operation:" in headers or b"Nats-Marker-Reason:" in headers
