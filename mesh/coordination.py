"""How the nodes of a mesh coordinate: its identity, lease, placement plan, bus servers, merge order and journal.

Frozen and encoded as MessagePack, like `mesh/messages.py`. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class MeshRecord(Struct, frozen=True, kw_only=True):
    """KV `mesh`, `identity`: which mesh this is. Written once, by the node that creates the mesh."""

    id: str = ""
    name: str = ""
    founded_at: float = 0.0
    founder: str = ""
    """Id of the node that created the mesh."""
    epoch: str = "w0"
    """The submitter token of task ids that the ingress gives: another one for each WORK stream."""
    wire_version: int = 1
    """The version of the messages its nodes exchange. Records without the field are of version 1."""


class Lease(Struct, frozen=True):
    """KV `lease`: who is leader. The revision with which its term began is the fencing number."""

    node: str
    incarnation: str
    at: float
    fence: int = 0
    """That revision; 0 in the record that begins the term."""


class Plan(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `plan`: for each kind, the pull priority of each node, 0 (first) to 9."""

    fence: int
    made_at: float = 0.0
    """By the clock of the leader: for people only."""
    number: int = 0
    """The revision that it was written over: of two plans with one fence the higher number is the newer one."""
    ranks: dict[str, dict[str, int]] = {}
    """kind -> node id -> priority"""
    regions: tuple[str, ...] = ()
    """The regions that have nodes; "" stands for nodes without a region."""
    places: dict[str, tuple[float, float]] = {}
    """region -> (latitude, longitude) in degrees, for regions where a node states its position"""


class Pool(Struct, frozen=True):
    """KV `pools`: the requirements behind the short name of a pool."""

    name: str
    requires: dict[str, Any]


class ServerRecord(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `mesh`, `server.<node>`: the bus server that a node runs. Written by that node."""

    node: str
    name: str
    """Its name in the meta group: a new one each time a node begins to host a server."""
    routes: tuple[tuple[str, int], ...] = ()
    """(address, port) where other servers reach it."""
    client_urls: tuple[str, ...] = ()
    since: float = 0.0


class HostingRequest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.bus`: start a bus server that joins those at `routes`, stop the one called `name`, or restart it."""

    do: str
    """host, stop or restart"""
    fence: int
    name: str = ""
    routes: tuple[tuple[str, int], ...] = ()


class HostingAnswer(Struct, frozen=True, omit_defaults=True):
    """The node's answer to a HostingRequest: "" when it complies, else the reason why not."""

    error: str = ""
    doing: str = ""
    """Why it refuses for the moment: "host", it starts a server, or runs one; "stop", it ends one."""


class StoreReport(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.store`: whether the bus server of a node stores. Sent while something is wrong, and once when it ends.

    It crosses core NATS, which works while JetStream does not.
    """

    node: str
    name: str = ""
    """The name of its machine."""
    servers: int = 1
    """How many bus servers the mesh has, as that node knows."""
    stores: bool = True
    is_full: bool = False
    """Whether it can't store because its disk is full."""
    says: str = ""
    """What is wrong, for people; "" when nothing is."""
    lost: dict[str, int] = {}
    """Stream -> messages that are damaged or missing in its store."""


class DiskAnswer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer of a bus host on `node.<id>.disk`."""

    node: str
    wrote_ago_s: float = -1.0
    """How long ago the latest write that its disk has finished began; negative: none has finished."""


class BusReport(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`mesh.bus_report`: what the leader read from the bus servers about the copies of the streams."""

    fence: int
    waits: str = ""
    """Why the bus has fewer complete copies than it should; "" when it has them all."""


class MergeOrder(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `mesh`, `merge`: this mesh is merged into another one and ends."""

    into: str
    """Id of the other mesh."""
    urls: tuple[str, ...]
    """Client URLs of its bus."""
    phase: str = "drain"
    """drain: the nodes finish what they run and leave; moved: everything is copied, and the bus servers stop."""
    by: str = ""
    """Node id (or program) that gave the order."""
    at: float = 0.0
    moved: dict[str, int] = {}
    """What was copied so far -> how many: tasks, results, blobs …"""
    mover: str = ""
    """The node that copies; it stays until the end."""
    token: str = ""
    """Random. The order counts only with an acceptance of this token in the other mesh."""
    work_max_bytes: int = 0
    """The limit of the queue before the merge closed it, for undoing; 0: it is open."""


class MergeAcceptance(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `mesh`, `accepts.<id of the other mesh>`: that mesh is merged into this one, by the order with that token."""

    source: str
    token: str
    by: str = ""
    phase: str = "drain"
    """As in the order: `moved` once this mesh holds everything."""


class IdentityClaim(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.identity`: a running process says that it is this node. Two of them are twins: see
    `mesh/membership/twins.py`."""

    node: str
    incarnation: str
    session: str
    """New with every connection: tells two copies of one running process apart."""
    connections: int = 1
    """How many connections the process has had."""
    ticket: int = 0
    """The revision of the first node record that the process wrote, so the bus orders them; 0: none yet."""
    name: str = ""
    """The host name of its machine."""
    addresses: tuple[str, ...] = ()
    machine_id: str = ""
    boot_id: str = ""
    """Another one each time the machine starts."""
    pid: int = 0


class MeshEvent(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Stream EVENTS: one entry of the journal."""

    type: str
    at: float
    node: str = ""
    fence: int = 0
    detail: dict[str, Any] = {}
