"""The task of `submit` and `map`: its payload with files in it, checked before anything is uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.client import Mesh

#: Stands for a file that is not uploaded yet while the payload is checked.
PLACEHOLDER = {"blob": "b-t0"}


def check(kind: str, payload: Any, options: dict[str, Any]) -> None:
    """Find what the mesh would refuse, without a mesh. Raises: UnknownKind, BadInput with every fault."""
    from mesh.config import LAN
    from mesh.tasks.validation import prepare
    from mesh.views import SubmitRequest

    prepare(SubmitRequest(kind, payload, **options), "check-1", 0.0, LAN)


def with_files(payload: Any, files: dict[str, Any]) -> Any:
    """`payload` with `files` (field -> blob reference) in it. Raises: BadInput when it is not an object."""
    from mesh.errors import BadInput

    if not files:
        return payload
    if payload is not None and not isinstance(payload, dict):
        raise BadInput('a payload that takes files must be a JSON object, {"field": value, …}')
    return {**(payload or {}), **files}


async def upload(mesh: Mesh, path: Path) -> dict[str, Any]:
    """Upload a file; returns its reference for a payload. Raises: OSError, StorageFull."""
    from mesh.media_types import content_type

    reference = await mesh.put_blob(path, content_type(path.name))
    return {"blob": reference.blob, "size": reference.size, "content_type": reference.content_type}
