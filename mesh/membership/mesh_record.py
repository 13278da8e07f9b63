"""The mesh's own record, KV `mesh` key `identity`, and whether this program can work in the mesh it describes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mesh import decoding, subjects
from mesh.bus.errors import STREAM_NOT_FOUND, ApiError, WrongSequence
from mesh.coordination import MeshRecord
from mesh.decoding import readable
from mesh.errors import IncompatibleMesh
from mesh.messages import WIRE_VERSION, encode

if TYPE_CHECKING:
    from mesh.bus.client import Bus


log = logging.getLogger(__name__)


async def read_mesh_record(bus: Bus) -> MeshRecord | None:
    """The record of the mesh on this bus; None when nobody created a mesh there. Raises: BusUnavailable, ApiError."""
    try:
        entry = await bus.kv(subjects.KV_MESH).get(subjects.MESH_KEY)
    except ApiError as error:
        if error.error_code == STREAM_NOT_FOUND:
            return None
        raise
    return readable(decoding.mesh, entry)


async def read_mesh_record_anywhere(bus: Bus) -> MeshRecord | None:
    """The record as any replica has it: also answered while the bucket has no leader. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_MESH).entries(subjects.MESH_KEY)
    return readable(decoding.mesh, entries[0]) if entries else None


async def create_mesh_record(bus: Bus, record: MeshRecord) -> None:
    """Write the record of a new mesh. Raises: KeyExists, BusUnavailable."""
    await bus.kv(subjects.KV_MESH).create(subjects.MESH_KEY, encode(record))


async def repair_mesh_record(bus: Bus, record: MeshRecord) -> bool:
    """Write the record over one that can't be read; False when there is none such. Raises: BusUnavailable, ApiError."""
    kv = bus.kv(subjects.KV_MESH)
    entry = await kv.get(subjects.MESH_KEY)
    if entry is None or readable(decoding.mesh, entry) is not None:
        return False
    try:
        await kv.update(subjects.MESH_KEY, encode(record), last=entry.revision)
    except WrongSequence:
        return False  # another node was first
    log.warning("the record of this mesh could not be read and was written again")
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
