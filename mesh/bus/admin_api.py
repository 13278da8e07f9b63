"""Orders to the bus servers about their meta group, over a connection to the system account.

Only the leader of the meta group carries them out; the others are silent. All functions raise ApiError (the servers'
refusal) and BusUnavailable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mesh.bus.connection import Connection
from mesh.bus.errors import answer_of, api_error

_TIMEOUT_S = 5.0


async def move_meta_leader(system: Connection, server: str) -> None:
    """Have the leader of the meta group hand over to `server`."""
    await _order(system, "META.LEADER.STEPDOWN", {"placement": {"preferred": server}})


async def remove_server(system: Connection, peer_id: str) -> None:
    """Take a server out of the meta group."""
    await _order(system, "SERVER.REMOVE", {"peer": "", "peer_id": peer_id})


async def lower_quorum(system: Connection, quorum: int) -> None:
    """Let `quorum` servers decide for a meta group that has lost its majority for good."""
    await _order(system, "META.RESCUE", {"quorum_needed": quorum})


async def _order(system: Connection, endpoint: str, body: Mapping[str, Any]) -> None:
    reply = await system.request(f"$JS.API.{endpoint}", json.dumps(body).encode(), _TIMEOUT_S)
    error = answer_of(reply.data).get("error")
    if error is not None:
        raise api_error(error)
