"""What tells this machine and this process from others with the same node id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mesh.coordination import IdentityClaim
from mesh.discovery.identity import DataDir
from mesh.subjects import is_token
from node.identity.record import machine_name

_BOOT_ID, _MACHINE_ID = Path("/proc/sys/kernel/random/boot_id"), Path("/etc/machine-id")


def _id_in(file: Path) -> str:
    """The id that the system keeps in `file`; "" where there is none."""
    try:
        text = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if is_token(text) else ""


def claim_of(data: DataDir, session: str, addresses: Sequence[str]) -> IdentityClaim:
    """The claim of this process; `connections` and `ticket` are still to be filled in."""
    return IdentityClaim(
        node=data.node_id,
        incarnation=data.incarnation,
        session=session,
        name=machine_name(data.node_id),
        addresses=tuple(addresses),
        machine_id=_id_in(_MACHINE_ID),
        boot_id=_id_in(_BOOT_ID),
        pid=os.getpid(),
    )
