"""Ports for tests that run side by side: each process hands out those of a block of its own."""

from __future__ import annotations

import itertools
import socket

#: Below the range that systems take ports of outgoing connections from (from 32768 on Linux, from 49152 elsewhere): a
#: port that a test was given and does not listen on yet, or not at the moment, is taken by nobody.
_FIRST, _LAST, _BLOCK = 12_000, 32_000, 100


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now, and which no other process that asks here is given."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what has ended is free
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
            except OSError:
                continue
        return port


_claims: list[socket.socket] = []


def _claim() -> int:
    """The first port of a block that no other process has: it is listened on as long as this process lives."""
    for first in range(_FIRST, _LAST, _BLOCK):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
            claim.listen(1)
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return first
    raise RuntimeError("every block of ports is taken; is a test run over and its processes are not?")


# Now, not at the first question: that may come from a thread in a network namespace, where no claim is seen.
_block = _claim()
_ports = itertools.cycle(range(_block + 1, _block + _BLOCK))
