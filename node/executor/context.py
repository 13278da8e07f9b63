"""What a kind's work is given and may give back. Imported by worker processes: keep it light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import Fault, UnknownKind
from mesh.subjects import is_token

if TYPE_CHECKING:
    from mesh.kinds.base import BlobInput


class InputFault(Exception):
    """The payload is at fault, in a way that only the work itself could find: the task is not retried.

    `field` is the payload's own field ("image"); `problem` a phrase that follows it ("is no JPEG").
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"payload.{field} {problem}")
        self.field, self.problem = field, problem

    @property
    def fault(self) -> Fault:
        """The same, as validation reports it: `Fault("payload.image", "is no JPEG")`."""
        return Fault(f"payload.{self.field}", self.problem)


@dataclass(frozen=True)
class Output:
    """A result that is bytes: themselves, or a file in the task's folder that holds them."""

    data: bytes | Path
    content_type: str = "application/octet-stream"
    info: dict[str, Any] = field(default_factory=dict)
    """Facts about them: width, height, format …"""


def _no_progress(fraction: float, note: str = "", text: str = "") -> None:
    """For work that nobody watches."""


def _no_checkpoint(data: bytes | Path, note: str = "") -> None:
    """For work that nobody keeps."""


def _none_kept() -> tuple[int, int]:
    return 0, 0


@dataclass(slots=True)
class Context:
    """What a task is given besides its payload."""

    cores: int
    """How many cores it may use."""
    folder: Path
    """The task's own folder: its working directory, gone after it."""
    blobs: dict[str, Path] = field(default_factory=dict)
    """blob id -> the file that holds it"""
    progress: Callable[..., None] = _no_progress
    """progress(fraction 0..1, note="", text=""); text: all that the task has written so far"""
    resume: Path | None = None
    """The newest checkpoint of an earlier run of this task, in a file; None: begin afresh. It comes from a peer: it
    must be read by nothing that runs code."""
    checkpoint: Callable[..., None] = _no_checkpoint
    """checkpoint(data, note=""): all that is needed to go on from here, as bytes or a file in the task's folder, which
    is moved away. It is kept while the work goes on; a newer one replaces it."""
    kept: Callable[[], tuple[int, int]] = _none_kept
    """() -> how many checkpoints of this run the mesh has kept, and how many it could not."""
    memory_mb: int = 0
    """What it may add to the process; 0: no limit."""
    fault_kinds: bool = False
    """Whether this node obeys payloads that break things on purpose."""
    grants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What this node's operator allows beyond what every node does: setting -> the values he listed."""

    def granted(self, setting: str) -> tuple[str, ...]:
        """What this node's operator listed for `setting`, a field of NodeConfig; nothing unless he did."""
        return tuple(self.grants.get(setting, ()))

    def read(self, data: bytes | BlobInput, field: str = "data") -> bytes:
        """The bytes that a `Data` field stands for, whichever way they came.

        Raises: InputFault naming `field`, when it names a blob that the mesh does not hold.
        """
        if isinstance(data, bytes):
            return data
        path = self.blobs.get(data.blob)
        if path is None:
            raise InputFault(field, f"names the blob {data.blob}, which the mesh does not hold (any more)")
        return path.read_bytes()


Run = Callable[[Any, Context], Any]


@cache
def load(kind: str) -> Run:
    """The function that does the work of `kind`; imports its module on first use.

    Raises: UnknownKind; ImportError when a library that the kind needs is absent or broken.
    """
    name = f"node.workloads.{kind}"
    try:
        if not is_token(kind):
            raise UnknownKind(f"There is no kind {kind[:64]!r}.")
        return importlib.import_module(name).run
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UnknownKind(f"This node has no code for the kind {kind!r}.") from None
