"""Key-value buckets, on the JetStream API itself.

nats-py's KeyValue has traps this avoids: `update` without TTL, values that are None over an expiry marker, a
watcher deaf for 15 s after a server restart. Here a marker is "absent", reads can be made at the leader, and
a watch is a subscription whose every hint is followed by a read.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mesh.bus.errors import MESSAGE_NOT_FOUND, ApiError, KeyExists, WrongSequence
from mesh.errors import BusUnavailable

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription


#: Entries read with one request.
PAGE = 500
#: A page may take so long, seconds; then, or so soon when nobody leads, it is asked for again, for as long as this.
LIST_PAGE_S, LIST_AGAIN_S, LIST_WITHIN_S = 2.5, 0.25, 5.0


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
            answer = await self._bus.api(
                f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key}
            )
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
        """(the next entries after revision `after`, whether there are more)

        While its copies elect who leads, nobody answers: it is asked again, for as long as an answer may take.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LIST_WITHIN_S
        while True:
            found, end = await self._ask_page(after, under)
            status = end.get("Status")
            if status in ("204", "404"):
                return found, status == "204" and int(end.get("Nats-Num-Pending") or 0) > 0
            if loop.time() + LIST_AGAIN_S > deadline:
                if status is None:
                    raise BusUnavailable(f"the bus did not list {self.bucket} in time")
                raise BusUnavailable(f"the bus can't list {self.bucket} right now (status {status})")
            await asyncio.sleep(LIST_AGAIN_S)

    async def _ask_page(self, after: int, under: str) -> tuple[list[Entry], dict[str, Any]]:
        """(the entries of one answer, the headers it ended with; none: it did not end)"""
        box = self._bus.new_inbox()
        found: list[Entry] = []
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def on_message(message: Message) -> None:
            headers: dict[str, Any] = message.headers or {}
            if headers.get("Status"):
                if not done.done():
                    done.set_result(headers)
                return
            gone = headers.get("KV-Operation") or headers.get("Nats-Marker-Reason")
            key = headers["Nats-Subject"][len(self._prefix) :]
            found.append(Entry(key, b"" if gone else message.data, int(headers["Nats-Sequence"])))

        subscription = await self._bus.subscribe(box, on_message)
        try:
            body = {"batch": PAGE, "seq": after + 1, "next_by_subj": self._prefix + under}
            self._bus.send(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(body).encode(), box)
            async with asyncio.timeout(LIST_PAGE_S):
                return found, await done
        except TimeoutError:
            # A copy that lost its leader meanwhile never answers what it was asked then.
            return [], {}
        finally:
            await subscription.close()

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
