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
        """The newest value of every key (under the pattern `under`), read in one go."""
        box = self._bus.new_inbox()
        found: list[Entry] = []
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_message(message: Message) -> None:
            headers: dict[str, Any] = message.headers or {}
            status = headers.get("Status")
            if status:
                if not done.done():
                    done.set_result(status)
            elif message.data and not headers.get("KV-Operation") and not headers.get("Nats-Marker-Reason"):
                key = headers["Nats-Subject"][len(self._prefix) :]
                found.append(Entry(key, message.data, int(headers["Nats-Sequence"])))

        subscription = await self._bus.subscribe(box, on_message)
        try:
            body = json.dumps({"multi_last": [self._prefix + under]}).encode()
            self._bus.send(f"$JS.API.DIRECT.GET.{self._stream}", body, box)
            async with asyncio.timeout(5.0):
                status = await done
        except TimeoutError:
            raise BusUnavailable(f"the bus did not list {self.bucket} in time") from None
        finally:
            await subscription.close()
        if status not in ("204", "404"):
            raise BusUnavailable(f"the bus can't list {self.bucket} right now (status {status})")
        return found

    async def watch(self, changed: Callable[[str], None]) -> Subscription:
        """`changed(key)` is called whenever somebody writes a key: a hint, to be followed by a read.

        Hints are lost while the connection is: read `entries()` again in the bus's `on_back`.
        """
        start = len(self._prefix)
        return await self._bus.subscribe(f"{self._prefix}>", lambda message: changed(message.subject[start:]))


def is_marker(headers: bytes) -> bool:
    """Whether a stored message only says that its key is gone (deleted, purged or expired)."""
    return b"KV-Operation:" in headers or b"Nats-Marker-Reason:" in headers
