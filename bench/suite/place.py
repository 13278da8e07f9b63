"""Where a benchmark runs: this machine, or a node of a mesh. The suite's one seam."""

from __future__ import annotations

from typing import Any, Protocol

from bench.suite.model import Conditions
from mesh.errors import QueztlError


class WorkFailed(QueztlError):
    """The work itself failed."""


class Place(Protocol):
    """Repetitions run one after the other, each alone, on a machine that stays the same."""

    async def lacking(self, kind: str) -> str:
        """Why `kind` can't be run there, and the command that helps; "" when it can."""

    async def begin(self) -> None:
        """The figures of a benchmark begin."""

    async def end(self) -> Conditions:
        """What the machine was like since `begin`."""

    async def repeat(self, kind: str, payload: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """(the result, or the info of a result that is bytes; seconds that its worker took).

        Raises: QueztlError when the payload is refused; WorkFailed when the work fails.
        """
