"""Small HTTP servers whose every byte a test decides: for hostile answers and for timed stalls."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mesh.kinds.table import validate
from node.executor.context import Context, load

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answering:
    """A server on a port of its own; `answer(number)` returns the bytes for each request, or None to close."""

    def __init__(self, answer: Callable[[int], bytes | None], address: str = "127.0.0.1", port: int = 0) -> None:
        self._answer, self.requests, self.seen, self.connections = answer, 0, [], 0
        self._lock = threading.Lock()
        self.sock = socket.create_server((address, port))
        self.port = self.sock.getsockname()[1]
        self.target = f"{address}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        rest = b""
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                    rest += data
                    while b"\r\n\r\n" in rest:
                        head, _, rest = rest.partition(b"\r\n\r\n")
                        with self._lock:
                            self.requests += 1
                            number = self.requests
                            self.seen.append(head)
                        answer = self._answer(number)
                        if answer is None:
                            return
                        connection.sendall(answer)
                except OSError:
                    return
                if not data:
                    return


@contextlib.contextmanager
def answering(answer: Callable[[int], bytes | None], **more):
    server = Answering(answer, **more)
    try:
        yield server
    finally:
        server.close()


def load_test_in(folder: Path) -> Callable[..., Any]:
    """The workload web_server_load, as `call(payload, cores, listed)`; `listed`: the targets that it may contact."""

    def call(payload: dict[str, Any], cores: int = 2, listed: Iterable[str] = (), **more: Any) -> Any:
        context = Context(cores, folder, grants={"web_targets": tuple(listed)}, **more)
        return load("web_server_load")(validate("web_server_load", payload), context)

    return call
