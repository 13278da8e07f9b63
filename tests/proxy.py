"""A TCP relay between a client and a server, for connection faults."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """A TCP relay on loopback: it can reset every connection it carries, and accepts new ones at once."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.accepted = 0
        self.mute = False
        """New connections are accepted and get no data, as the system does for a process that is frozen."""
        self.dropped = 0
        """Mute connections that the other side closed."""

    async def start(self) -> int:
        """Start to listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.mute:
            self._writers.add(writer)
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            self.dropped += 1
            return writer.close()
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, target_writer}
        if self._closed:
            return self.cut()
        for source, sink in ((reader, target_writer), (target_reader, writer)):
            task = asyncio.create_task(self._relay(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # `cut` resets connections on purpose
        finally:
            sink.transport.abort()

    @property
    def carried(self) -> int:
        """Directions it relays now, two for each connection."""
        return len(self._tasks)

    def cut(self) -> None:
        """Reset all connections now."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        """End the relay with all its connections."""
        self._closed = True
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()
