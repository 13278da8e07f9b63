"""The limits of a node and of its mesh: one table. Pure.

A level is a number that grows and shrinks, such as open connections: it raises an alarm at four fifths of its limit,
and is enforced at the limit. A size is that of one request, and is only enforced. Stores have limits of their own, in
bytes (mesh/config.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

MIB = 1024 * 1024
#: A level above this share of its limit raises an alarm.
ALARM_SHARE = 0.8
#: Descriptors that a node needs besides those of its API: the bus, workers, files.
RESERVED_DESCRIPTORS = 128
#: However few descriptors there are, an API answers this many clients at once.
FEWEST_CONNECTIONS = 8
#: No limit may be larger.
LARGEST = 999_999_999


@dataclass(frozen=True)
class Limits:
    """How much is accepted. `--limit NAME=N` sets one; the docstring of a field says what it counts."""

    connections: int = 1000
    """Connections to the API of one node; at most half of the file descriptors that its process may open."""
    body_memory_bytes: int = 256 * MIB
    """Bodies that the API of one node holds in memory at the same time."""
    event_streams: int = 500
    """Event streams that one node serves at the same time."""
    lanes: int = 250
    """Lanes of the mesh for work with requirements: each is a Raft group. Others: one for each kind and urgency."""
    regions: int = 16
    """Regions of the mesh that have lanes of their own: one for each kind and urgency."""
    nodes: int = 5000
    """Nodes of the mesh, registered ones not counted."""
    registered_nodes: int = 500
    """Nodes that were registered over HTTP and have not connected yet."""
    held_bytes: int = 256 * MIB
    """Announcements of held deliveries that one node keeps, of all nodes together."""
    bus_connections: int = 10_000
    """Connections to one bus server; at most half of the file descriptors that it may open."""
    body_bytes: int = 4 * MIB
    """One JSON or MessagePack body, decoded."""
    decoded_blob_bytes: int = 64 * MIB
    """One blob that is uploaded with a Content-Encoding, decoded."""
    registration_bytes: int = 64 * 1024
    """The body of one registration."""
    header_bytes: int = 8190
    """The request line, and each header, of one request."""
    headers: int = 128
    """Headers of one request."""


@dataclass(frozen=True)
class Row:
    """What happens at a limit."""

    is_level: bool
    """Whether it raises an alarm at ALARM_SHARE."""
    refusal: str
    """What is answered beyond it."""
    where: str
    """Whose alarm it is: of the mesh, or of the node alone."""
    noun: str = ""
    """What is counted, for the alarm."""


#: limit -> what happens at it
# fmt: off
TABLE: Mapping[str, Row] = {
    "connections": Row(True, "503; first the connection that waits longest for a request is closed", "node",
                       "connections to the API of this node"),
    "body_memory_bytes": Row(True, "503", "node", "bytes of memory for the bodies of requests to this node"),
    "event_streams": Row(True, "503", "node", "event streams of this node"),
    "lanes": Row(True, "429 for new requirements; the leader removes empty lanes sooner", "mesh",
                 "lanes for work with requirements"),
    "regions": Row(True, "work from further regions is queued without its region: any node takes it first", "mesh",
                   "regions with lanes of their own"),
    "nodes": Row(True, "a new node does not start; 429 for registrations", "mesh", "nodes"),
    "registered_nodes": Row(True, "429", "mesh", "registered nodes that have not connected"),
    "held_bytes": Row(True, "further announcements are ignored: that work is given back after `ack_wait_s`", "node",
                      "bytes of announcements of held deliveries"),
    "bus_connections": Row(True, "the bus server closes the connection", "mesh", "connections to a bus server"),
    "body_bytes": Row(False, "413", "request"),
    "decoded_blob_bytes": Row(False, "413", "request"),
    "registration_bytes": Row(False, "413", "request"),
    "header_bytes": Row(False, "431", "request"),
    "headers": Row(False, "431", "request"),
}
# fmt: on

NAMES = tuple(field.name for field in fields(Limits))


def fit_to_descriptors(limits: Limits, descriptors: int) -> Limits:
    """`limits` with as many connections as a process with so many file descriptors can serve."""
    share = max(FEWEST_CONNECTIONS, (descriptors - RESERVED_DESCRIPTORS) // 2)
    return replace(
        limits, connections=min(limits.connections, share), bus_connections=min(limits.bus_connections, share)
    )


def alarm_at(limit: int) -> float:
    """The level at which the alarm is raised."""
    return limit * ALARM_SHARE


def alarms(levels: Mapping[str, int], limits: Limits) -> dict[str, str]:
    """name -> a sentence, for each level that has reached four fifths of its limit."""
    found: dict[str, str] = {}
    for name, level in levels.items():
        limit = getattr(limits, name)
        if level >= alarm_at(limit):
            row = TABLE[name]
            found[name] = f"{level} of {limit} {row.noun}; beyond the limit: {row.refusal} (--limit {name}=N)."
    return found
