"""The record of the mesh as this node knows it: from its data directory, where the record in the mesh may be forged."""

from __future__ import annotations

import hashlib

import msgspec

from mesh import subjects
from mesh.bus.client import Bus
from mesh.coordination import MeshRecord
from mesh.discovery.identity import DataDir, MeshIdentity
from mesh.errors import BusUnavailable
from mesh.membership.mesh_record import check_wire_version, read_mesh_record, repair_mesh_record
from mesh.messages import WIRE_VERSION
from mesh.subjects import is_token


def epoch_of(created: str) -> str:
    """The epoch of the WORK stream that was created at that time. Pure: every node of a mesh has the same one, whatever
    a record says."""
    return f"w{hashlib.sha256(created.encode()).hexdigest()[:8]}"


async def read_epoch(bus: Bus) -> str:
    """The epoch of the WORK stream on this bus. Raises: BusUnavailable, ApiError."""
    return epoch_of((await bus.stream_info(subjects.WORK)).created)


def new_record(mesh: MeshIdentity, epoch: str) -> MeshRecord:
    """The record of a mesh that speaks this program's wire version."""
    return MeshRecord(
        id=mesh.id,
        name=mesh.name,
        founded_at=mesh.founded_at,
        founder=mesh.founder,
        epoch=epoch if is_token(epoch) else MeshRecord().epoch,
        wire_version=WIRE_VERSION,
    )


def known_of(mesh: MeshIdentity, data: DataDir) -> dict[str, object]:
    """What this node knows of its mesh: field of the record -> value. Pure."""
    known: dict[str, object] = {"id": mesh.id}
    if data.mesh is not None and data.mesh.id == mesh.id:
        known["name"] = data.mesh.name
        if data.wire_version:
            known["wire_version"] = data.wire_version
    return known


async def repair(bus: Bus, mesh: MeshIdentity, data: DataDir) -> None:
    """Write the record of `mesh`, whose bus this is, over one that is forged.

    Raises: IncompatibleMesh when this node's data directory is of another wire version, BusUnavailable, ApiError.
    """
    known = known_of(mesh, data)
    if "wire_version" in known:
        check_wire_version(MeshRecord(name=mesh.name, wire_version=data.wire_version))
    await repair_mesh_record(bus, new_record(mesh, data.epoch if "name" in known else ""), known)


async def read(bus: Bus) -> MeshRecord:
    """The record of the mesh on this bus, with the true epoch. Raises: BusUnavailable, ApiError, IncompatibleMesh."""
    record = await read_mesh_record(bus)
    if record is None:
        raise BusUnavailable("it has no mesh identity")
    check_wire_version(record)
    return msgspec.structs.replace(record, epoch=await read_epoch(bus))


def remember(data: DataDir, mesh: MeshIdentity, urls: tuple[str, ...], record: MeshRecord) -> None:
    """Store what a node that has joined needs at its next start. Raises: OSError."""
    data.remember_mesh(mesh, urls)
    data.remember_record(record.epoch, record.wire_version)
