"""nats-py, loaded without aiohttp: only this module imports it.

nats-py imports aiohttp, for WebSockets, wherever it is installed. Queztl uses no WebSockets, and aiohttp is a quarter
of the time that a command takes to start.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager


class _Hidden:
    """Finds no module of these names, for one thread; a module that is loaded already is not looked for."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._thread = names, threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raises: ModuleNotFoundError for a hidden module."""
        if name in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not loaded for nats-py", name=name)


@contextmanager
def _hidden(*names: str) -> Generator[None, None, None]:
    finder = _Hidden(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with _hidden("aiohttp", "multidict"):
    from nats.aio.client import Client, Srv
    from nats.aio.subscription import Subscription
    from nats.aio.transport import TcpTransport
    from nats.errors import BadSubscriptionError, ConnectionClosedError, Error

__all__ = ["BadSubscriptionError", "Client", "ConnectionClosedError", "Error", "Srv", "Subscription", "TcpTransport"]
