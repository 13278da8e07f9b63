"""Whether a bus server is a member, as the servers' own group says: records in the mesh can be written by anybody."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.bus.client import Bus
from mesh.bus.server.config import SYSTEM_USER
from mesh.cluster.raft_meta import ask_all, leaders_view, read_groups
from mesh.config import MeshConfig


async def is_in_group(urls: Sequence[str], password: str, server: str, config: MeshConfig) -> bool | None:
    """Whether the leader of the bus servers at `urls` counts `server` as a member; None when no leader is heard.

    `password`: of the system account. Raises: BusUnavailable.
    """
    system = await Bus.connect(urls, name="membership", config=config, user=SYSTEM_USER, password=password)
    try:
        group = leaders_view(read_groups(await ask_all(system), [server]))
    finally:
        await system.close()
    return None if group is None else server in group.members
