"""Resolves the target of a load test to one address, which `mesh/targets.py` allows or refuses."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from mesh import targets
from node.executor.context import InputFault


def resolve(target: str, listed: Sequence[str]) -> tuple[str, int]:
    """(address, port) of a target; the name is looked up only once.

    Raises: InputFault when `targets.decide` refuses it; an unlisted target is refused without a look-up.
    """
    host, port = targets.parse(target)
    try:
        if target not in listed:
            targets.decide(target, listed, ())
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return targets.decide(target, listed, [str(address[0]) for *_, address in found]), port
    except (socket.gaierror, UnicodeError) as error:
        raise InputFault("target", f"can't be looked up on this node: {error}") from None
    except ValueError as refusal:
        raise InputFault("target", str(refusal)) from None
