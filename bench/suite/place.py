"""Where a benchmark runs: the interface to this machine or a node of a mesh."""

from __future__ import annotations

from typing import Any, Protocol

from bench.suite.model import Conditions
from mesh.errors import QueztlError


class WorkFailed(QueztlError):
    """The work itself failed."""


class Place(Protocol):
    """A machine on which repetitions run one after the other, each alone."""

    async def lacking(self, kind: str) -> str:
        """Why `kind` can't run there, and the command that installs what is missing; "" when it can."""

    async def begin(self) -> None:
        """Begin a benchmark: note the state of the machine."""

    async def end(self) -> Conditions:
        """The conditions since `begin`."""

    async def repeat(self, kind: str, payload: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """(the result, or the info of a result that is bytes; the seconds in the worker).

        Raises: QueztlError when the payload is refused; WorkFailed when the work fails.
        """
