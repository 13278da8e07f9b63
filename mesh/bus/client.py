"""The facade of the bus: one connection with JetStream, its key-value buckets and its blob store."""

from __future__ import annotations

from mesh.bus.connection import Subscription
from mesh.bus.jetstream import JetStream
from mesh.bus.kv import Kv
from mesh.bus.objects import Objects
from mesh.bus.revisions import Revisions
from mesh.bus.stream_clock import StreamClock
from mesh.bus.wire import Message
from mesh.config import MeshConfig

__all__ = ["Bus", "Message", "Subscription"]


class Bus(JetStream):
    """A connection to the bus. Create one with `await Bus.connect(urls, name=…)`."""

    def __init__(self, config: MeshConfig) -> None:
        super().__init__(config)
        self.objects = Objects(self)
        self._clocks: dict[str, StreamClock] = {}
        self._revisions: dict[str, Revisions] = {}

    def kv(self, bucket: str) -> Kv:
        """A view of one key-value bucket."""
        return Kv(self, bucket)

    def clock(self, stream: str) -> StreamClock:
        """The clock of the server that leads `stream`."""
        if stream not in self._clocks:
            self._clocks[stream] = StreamClock(self, stream)
        return self._clocks[stream]

    def revisions(self, bucket: str) -> Revisions:
        """The revisions that a bucket has given."""
        if bucket not in self._revisions:
            self._revisions[bucket] = Revisions(self, bucket)
        return self._revisions[bucket]
