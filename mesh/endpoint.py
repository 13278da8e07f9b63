"""How a program finds the bus: by the address it was given, the environment, or the node on this machine."""

from __future__ import annotations

from mesh.errors import BusUnavailable
from mesh.node_api import BUS_SCHEMES, mesh_address, network_status

#: A client waits this long for a node's answer.
ANSWER_TIMEOUT_S = 3.0


async def bus_urls(url: str | None) -> tuple[str, ...]:
    """The URLs of the bus servers: see `bus_location`."""
    return (await bus_location(url))[0]


async def bus_location(url: str | None) -> tuple[tuple[str, ...], str]:
    """(the URLs of the bus servers, the id of their mesh as a node's API says it; "" for the address of a bus)

    `url` names a bus server (nats://HOST:PORT) or any node's API (http://HOST:PORT); None means QUEZTL_URL, else the
    node on this machine. Raises: BadInput for another scheme; BusUnavailable, with what to do, when no node answers.
    """
    address = mesh_address(url)
    if address.startswith(BUS_SCHEMES):
        return tuple(part.strip() for part in address.split(",")), ""
    document = await network_status(address, timeout_s=ANSWER_TIMEOUT_S)
    if waiting := document.get("waiting"):
        raise BusUnavailable(str(waiting.get("reason", "the node has not joined its mesh")))
    return tuple(document["bus"]["urls"]), str(document.get("mesh_id") or "")
