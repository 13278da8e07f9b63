"""The mesh's own record, KV `mesh` key `identity`, and whether this program can work in the mesh it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.errors import STREAM_NOT_FOUND, ApiError
from mesh.coordination import MeshRecord, decode_mesh
from mesh.errors import IncompatibleMesh
from mesh.messages import WIRE_VERSION, encode

if TYPE_CHECKING:
    from mesh.bus.client import Bus


async def read_mesh_record(bus: Bus) -> MeshRecord | None:
    """The record of the mesh on this bus; None when nobody created a mesh there. Raises: BusUnavailable, ApiError."""
    try:
        entry = await bus.kv(subjects.KV_MESH).get(subjects.MESH_KEY)
    except ApiError as error:
        if error.error_code == STREAM_NOT_FOUND:
            return None
        raise
    return decode_mesh(entry.value) if entry is not None else None


async def read_mesh_record_anywhere(bus: Bus) -> MeshRecord | None:
    """The record as any replica has it: also answered while the bucket has no leader. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_MESH).entries(subjects.MESH_KEY)
    return decode_mesh(entries[0].value) if entries else None


async def create_mesh_record(bus: Bus, record: MeshRecord) -> None:
    """Write the record of a new mesh. Raises: KeyExists, BusUnavailable."""
    await bus.kv(subjects.KV_MESH).create(subjects.MESH_KEY, encode(record))


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
