"""Ports for tests that run in parallel: each process hands out ports from a block of its own."""

from __future__ import annotations

import itertools
import socket

#: Below the ephemeral range (from 32768 on Linux, from 49152 elsewhere): no outgoing connection takes a port that was
#: given to a test and has no listener at the moment.
_FIRST, _LAST, _BLOCK = 12_000, 32_000, 100


def free_port() -> int:
    """A port of 127.0.0.1 that has no listener now and that no other test process is given."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: ports in TIME_WAIT are free
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
            except OSError:
                continue
        return port


_claims: list[socket.socket] = []


def _claim() -> int:
    """The first port of a block that no other process has claimed: this process listens on it as long as it lives."""
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
    raise RuntimeError("every block of ports is taken; has a test run left processes behind?")


# Claim at import, not at the first call: that may come from a thread in a network namespace, where claims of other
# processes are not visible.
_block = _claim()
_ports = itertools.cycle(range(_block + 1, _block + _BLOCK))
