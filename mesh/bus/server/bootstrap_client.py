"""A handful of requests to a nats-server before any client exists: to create its cluster, and to see that it is ready.

One connection, one request at a time, no reconnecting, no dependencies. Everything else goes through
`mesh/bus/client.py`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any


class AdminError(Exception):
    """The server refused, closed the connection, or nobody answers on that subject."""


class Admin:
    """A connection for administrators; get one from `Admin.open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_id: str) -> None:
        self._reader, self._writer = reader, writer
        self.server_id = server_id
        self._box = f"_INBOX.{secrets.token_hex(8)}"
        self._last = 0

    @classmethod
    async def open(cls, host: str, port: int, user: str = "", password: str = "", *, timeout_s: float = 2.0) -> Admin:
        """Connect, and be let in. Raises: AdminError; OSError and TimeoutError when nobody is there."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                line = await reader.readline()
                if not line.startswith(b"INFO "):
                    raise AdminError(f"{host}:{port} is no nats-server")
                hello = {"verbose": False, "pedantic": False, "lang": "queztl", "version": "1", "protocol": 1}
                hello |= {"headers": True, "no_responders": True}
                hello |= {"user": user, "pass": password} if user else {}
                admin = cls(reader, writer, json.loads(line[5:])["server_id"])
                writer.write(f"CONNECT {json.dumps(hello)}\r\nSUB {admin._box}.* 1\r\nPING\r\n".encode())
                while (line := await admin._line()) != b"PONG":
                    pass
                return admin
            except BaseException:
                writer.transport.abort()
                raise

    async def request(self, subject: str, body: dict[str, Any] | None = None, *, timeout_s: float = 2.0) -> Any:
        """One request, its first answer as JSON. Raises: AdminError, OSError, TimeoutError."""
        data = json.dumps(body).encode() if body is not None else b""
        return json.loads(await self.ask(subject, data, timeout_s=timeout_s))

    async def ask(self, subject: str, data: bytes = b"", *, timeout_s: float = 2.0) -> bytes:
        """One request, its first answer. Raises: AdminError, OSError, TimeoutError."""
        self._last += 1
        box = f"{self._box}.{self._last}"
        self._writer.write(f"PUB {subject} {box} {len(data)}\r\n".encode() + data + b"\r\n")
        async with asyncio.timeout(timeout_s):
            while True:
                words = (await self._line()).split()
                if words[:1] not in ([b"MSG"], [b"HMSG"]):
                    continue
                total = int(words[-1])
                payload = (await self._reader.readexactly(total + 2))[:-2]
                if words[1].decode() != box:
                    continue  # a late answer to a request that was given up
                if words[0] == b"HMSG":
                    payload = payload[int(words[-2]) :]
                    if not payload:
                        raise AdminError(f"nobody answers on {subject}")
                return payload

    async def close(self) -> None:
        """Hang up at once: a server that is frozen takes no last words."""
        self._writer.transport.abort()

    async def _line(self) -> bytes:
        try:
            line = (await self._reader.readuntil(b"\r\n"))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            raise AdminError("the server closed the connection") from None
        if line == b"PING":
            self._writer.write(b"PONG\r\n")
        if line.startswith(b"-ERR"):
            raise AdminError(line[4:].decode(errors="replace").strip(" '"))
        return line
