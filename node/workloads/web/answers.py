"""What the server of a load test answers on each route: made once, by the server and by those who check it (pure)."""

from __future__ import annotations

import hashlib
import json

#: Rounds of the hash on route cpu: 0.3 ms of a core of 2024.
CPU_ROUNDS = 1000
TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"


def path_of(route: str, body_kb: int) -> str:
    """The path that is asked for: "/plaintext", "/body/16"."""
    return f"/body/{body_kb}" if route == "body" else f"/{route}"


def hashed() -> bytes:
    """The answer of route cpu: the work is done at each call."""
    return hashlib.pbkdf2_hmac("sha256", b"queztl", b"load", CPU_ROUNDS).hex().encode()


def answer(path: str, sent: bytes) -> tuple[bytes, str] | None:
    """(body, content type) for a request that carried `sent`; None: there is no such path."""
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
    """`size_bytes` bytes that don't compress to nothing and are the same everywhere."""
    block = hashlib.shake_128(b"queztl").digest(4096)
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


def request(method: str, path: str, host: str, sent: bytes, keep_alive: bool) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "User-Agent: queztl-web-server-load", "Accept: */*"]
    if method == "POST":
        lines += [f"Content-Length: {len(sent)}", f"Content-Type: {BYTES}"]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + sent
