"""From the target of a load test to the one address it goes to: looked up once, here; judged by `mesh/targets.py`."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from mesh import targets
from node.executor.context import InputFault


def resolve(target: str, listed: Sequence[str]) -> tuple[str, int]:
    """(address, port) that `target` stands for; its name is looked up here and never again.

    Raises: InputFault, as `decide` refuses it; also before any look-up when it is not listed.
    """
    host, port = targets.parse(target)
    try:
        if target not in listed:
            targets.decide(target, listed, ())
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return targets.decide(target, listed, [str(one[4][0]) for one in found]), port
    except (socket.gaierror, UnicodeError) as error:
        raise InputFault("target", f"can't be looked up here: {error}") from None
    except ValueError as refusal:
        raise InputFault("target", str(refusal)) from None
