"""The version that a node reports, and what `--version` prints."""

from __future__ import annotations

import platform

from mesh.errors import CannotStart
from mesh.messages import WIRE_VERSION
from mesh.version import program_version


def version() -> str:
    """The installed version of Queztl; "0.0.0" where it is not installed as a package."""
    return program_version() or "0.0.0"


def version_line(program: str) -> str:
    """Name and version, wire version, Python and nats-server, in one line. Asks nats-server: some 30 ms."""
    from mesh.bus.server.binary import find_server

    try:
        server = ".".join(map(str, find_server().version))
    except CannotStart as error:
        server = f"not usable: {error.message}"
    return (
        f"{program} {version()} (wire version {WIRE_VERSION}, Python {platform.python_version()}, nats-server {server})"
    )
