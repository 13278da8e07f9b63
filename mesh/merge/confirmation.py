"""Whether an order to merge may be carried out: both meshes hold matching records, and the other one is what it says.

An order ends a mesh, so no single message may start one. Whoever gives an order first writes an acceptance with the
same token into the other mesh. Before a node does anything, it reads the record of the mesh behind the order's URLs,
its acceptance and its own order; before a bus host puts its store aside, also that the mover reported the end there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mesh import decoding, subjects
from mesh.coordination import MergeAcceptance, MergeOrder
from mesh.decoding import readable
from mesh.errors import BusUnavailable, QueztlError
from mesh.membership.mesh_record import check_wire_version, read_mesh_record
from mesh.merge.order import read_order

if TYPE_CHECKING:
    from mesh.bus.client import Bus

Connect = Callable[[tuple[str, ...]], Awaitable["Bus"]]


@dataclass(frozen=True)
class Target:
    """What the bus at an order's URLs says about itself."""

    mesh: str
    name: str
    acceptance: MergeAcceptance | None
    """Its acceptance of the mesh that is merged."""
    order: MergeOrder | None
    """Its own order to merge into another mesh."""


@dataclass(frozen=True)
class Confirmation:
    """Whether an order is confirmed; `silent`: its target does not answer now."""

    state: Literal["confirmed", "refused", "silent"]
    why: str = ""
    moved: bool = False
    """Whether the target, too, says that everything has been moved."""


def judge(order: MergeOrder, source: str, name: str, target: Target | None) -> Confirmation:
    """Whether the order of the mesh `source`, called `name`, may be carried out. Pure.

    `target` None: nothing answers at its URLs. Of two meshes that were ordered into each other at the same moment, the
    order with the lower token stands.
    """
    if target is None:
        return Confirmation("silent", f"the mesh {order.into} does not answer at {', '.join(order.urls)}")
    if (target.mesh, target.name) != (order.into, name):
        return Confirmation("refused", f"the mesh at {', '.join(order.urls)} is {target.mesh}, not {order.into}")
    theirs = target.order
    if theirs is not None and theirs.token == order.token:
        return Confirmation("refused", "it names this mesh itself")
    if theirs is not None and not (theirs.into == source and order.token < theirs.token):
        return Confirmation("refused", f"{order.into} is merged into another mesh itself")
    acceptance = target.acceptance
    if acceptance is None or not order.token or (acceptance.source, acceptance.token) != (source, order.token):
        return Confirmation("refused", f"{order.into} holds no matching acceptance")
    return Confirmation("confirmed", moved=acceptance.phase == "moved")


async def read_target(bus: Bus, source: str) -> Target:
    """What that bus says about itself, and about the mesh `source`.

    Raises: BusUnavailable, IncompatibleMesh, ApiError.
    """
    record = await read_mesh_record(bus)
    if record is None:
        raise BusUnavailable("there is no mesh on this bus")
    check_wire_version(record)
    acceptance = readable(decoding.acceptance, await bus.kv(subjects.KV_MESH).get(subjects.acceptance_key(source)))
    return Target(record.id, record.name, acceptance, await read_order(bus))


async def confirm(order: MergeOrder, source: str, name: str, connect: Connect) -> Confirmation:
    """Ask the target of the order of the mesh `source`, called `name`. `connect`: connects to a bus at some URLs."""
    try:
        target = await connect(order.urls)
    except QueztlError:
        return judge(order, source, name, None)
    try:
        return judge(order, source, name, await read_target(target, source))
    except QueztlError:
        return judge(order, source, name, None)
    finally:
        await target.close()
