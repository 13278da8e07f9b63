"""The requests of a load test and the server's response on each route, which the generators check (pure)."""

from __future__ import annotations

import hashlib
import json

#: Rounds of the hash on route cpu: 0.3 ms on a core of 2024.
CPU_ROUNDS = 1000
TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"


def path_of(route: str, body_kb: int) -> str:
    """The path of a route: "/plaintext", "/body/16"."""
    return f"/body/{body_kb}" if route == "body" else f"/{route}"


def hashed() -> bytes:
    """The response of route cpu, computed at each call."""
    return hashlib.pbkdf2_hmac("sha256", b"queztl", b"load", CPU_ROUNDS).hex().encode()


def answer(path: str, sent: bytes) -> tuple[bytes, str] | None:
    """(body, content type) of the response to a request with the body `sent`; None: unknown path."""
    match path.split("/"):
        case ["", "plaintext"]:
            return b"Hello, World!", TEXT
        case ["", "json"]:
            return json.dumps({"message": "Hello, World!"}).encode(), JSON
        case ["", "cpu"]:
            return hashed(), TEXT
        case ["", "echo"]:
            return sent, BYTES
        case ["", "body", size] if size.isascii() and size.isdigit() and len(size) <= 4:
            return filler(int(size) * 1000), BYTES
    return None


def filler(size_bytes: int) -> bytes:
    """`size_bytes` reproducible bytes; blocks of 4096 bytes are incompressible."""
    block = hashlib.shake_128(b"queztl").digest(4096)
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


def request(method: str, path: str, host: str, sent: bytes, keep_alive: bool) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "User-Agent: queztl-web-server-load", "Accept: */*"]
    if method == "POST":
        lines += [f"Content-Length: {len(sent)}", f"Content-Type: {BYTES}"]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + sent
