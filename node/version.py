"""The version of Queztl, and what `--version` prints."""

from __future__ import annotations

import platform
from importlib import metadata

from mesh.errors import CannotStart
from mesh.messages import WIRE_VERSION


def version() -> str:
    """The installed version of Queztl; "0.0.0" where it is not installed as a package."""
    try:
        return metadata.version("queztl")
    except metadata.PackageNotFoundError:
        return "0.0.0"


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
