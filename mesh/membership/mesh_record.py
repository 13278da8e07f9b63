"""The mesh's own record, KV `mesh` key `identity`, and whether this program can work in the mesh it describes.

Any program that reaches the bus can write it. So the bus server says which mesh this is, which it has from the data
directory of its host, and the nodes that have worked in the mesh know its name and its wire version: a record that says
otherwise is forged: it is ignored, and written again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from mesh import decoding, subjects
from mesh.bus.errors import STREAM_NOT_FOUND, ApiError, WrongSequence
from mesh.coordination import MeshRecord
from mesh.decoding import readable
from mesh.errors import IncompatibleMesh
from mesh.messages import WIRE_VERSION, encode

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.bus.kv import Entry


log = logging.getLogger(__name__)


#: A bus without a record of a mesh for this long has none, seconds; before that its servers may just have started.
_ABSENT_S = 1.5


async def _entry(bus: Bus) -> Entry | None:
    try:
        return await bus.kv(subjects.KV_MESH).get(subjects.MESH_KEY, _ABSENT_S)
    except ApiError as error:
        if error.error_code == STREAM_NOT_FOUND:
            return None
        raise


async def read_mesh_record(bus: Bus) -> MeshRecord | None:
    """The record of the mesh on this bus; None when nobody created a mesh there. Raises: BusUnavailable, ApiError."""
    return _of_this_bus(bus, readable(decoding.mesh, await _entry(bus)))


async def read_mesh_record_anywhere(bus: Bus) -> MeshRecord | None:
    """The record as any replica has it: also answered while the bucket has no leader. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_MESH).entries(subjects.MESH_KEY)
    return _of_this_bus(bus, readable(decoding.mesh, entries[0])) if entries else None


def _of_this_bus(bus: Bus, record: MeshRecord | None) -> MeshRecord | None:
    """The record with the id that the bus server says, if it says one."""
    if record is None or bus.mesh_id in ("", record.id):
        return record
    log.warning("the record of the mesh names the mesh %s and is ignored: this is %s", record.id, bus.mesh_id)
    return msgspec.structs.replace(record, id=bus.mesh_id)


async def create_mesh_record(bus: Bus, record: MeshRecord) -> None:
    """Write the record of a new mesh. Raises: KeyExists, BusUnavailable."""
    await bus.kv(subjects.KV_MESH).create(subjects.MESH_KEY, encode(record))


def contradictions(record: MeshRecord, known: Mapping[str, object]) -> list[str]:
    """In what the record differs from what a node knows of its mesh, for people. Pure.

    `known`: field -> value, of fields that never change: id, name, wire_version, epoch.
    """
    found = ((name, getattr(record, name), value) for name, value in known.items())
    return [f"its {name} is {written!r}, not {value!r}" for name, written, value in found if written != value]


async def repair_mesh_record(bus: Bus, own: MeshRecord, known: Mapping[str, object]) -> bool:
    """Write `own` over a record that can't be read or contradicts what is `known`; False when there is none such.

    Raises: BusUnavailable, ApiError.
    """
    kv = bus.kv(subjects.KV_MESH)
    entry = await _entry(bus)
    if entry is None:
        return False
    record = readable(decoding.mesh, entry)
    wrong = contradictions(record, known) if record is not None else ["it can't be read"]
    if not wrong:
        return False
    try:
        await kv.update(subjects.MESH_KEY, encode(own), last=entry.revision)
    except WrongSequence:
        return False  # another node was first
    log.warning("the record of this mesh was forged (%s) and is written again", "; ".join(wrong)[:300])
    return True


def check_wire_version(record: MeshRecord, own: int = WIRE_VERSION) -> None:
    """Refuse a mesh whose messages this program does not speak. Raises: IncompatibleMesh. Pure."""
    if record.wire_version == own:
        return
    remedy = (
        "upgrade this program to the version that the mesh's nodes run"
        if record.wire_version > own
        else "upgrade the mesh's nodes, or run the version that they run"
    )
    raise IncompatibleMesh(
        f"mesh {record.name or record.id or 'without a name'} speaks wire version {record.wire_version}, "
        f"this program speaks version {own}; {remedy}"
    )
