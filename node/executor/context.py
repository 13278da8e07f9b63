"""What a workload receives and may return. Every worker process imports this file: keep it light."""

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


class CertainFailure(Exception):
    """The payload fails the same way at every attempt, on any machine: the task is not retried.

    For outcomes that payload and seed determine, such as a diverged training. A failure of the machine (memory, disk,
    time limit, a killed process) is never one.
    """


class NotAvailableNow(ImportError):
    """This node can't run the task now, and may be able to later: another model holds the memory, a hub is away.

    An ImportError that is none says that this node lacks what the task needs: an attempt here fails the same way again.
    """


class InputFault(CertainFailure):
    """The payload is invalid in a way that only the workload could detect.

    `field` is the payload's own field ("image"); `problem` a phrase that follows it ("is no JPEG").
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"payload.{field} {problem}")
        self.field, self.problem = field, problem

    @property
    def fault(self) -> Fault:
        """The same fault in the form that validation uses: `Fault("payload.image", "is no JPEG")`."""
        return Fault(f"payload.{self.field}", self.problem)


@dataclass(frozen=True)
class Output:
    """A result that is bytes: the bytes themselves, or a file in the task's folder."""

    data: bytes | Path
    content_type: str = "application/octet-stream"
    info: dict[str, Any] = field(default_factory=dict)
    """Facts about the bytes: width, height, format …"""


def _no_progress(fraction: float, note: str = "", text: str = "") -> None:
    """The default: progress is not reported."""


def _no_checkpoint(data: bytes | Path, note: str = "") -> None:
    """The default: checkpoints are not stored."""


def _not_attached(name: str, file: Path, content_type: str) -> None:
    """The default: files beside the result are not stored."""


def _none_kept() -> tuple[int, int]:
    return 0, 0


@dataclass(slots=True)
class Context:
    """What a workload receives besides the payload of its task."""

    cores: int
    """How many cores it may use."""
    folder: Path
    """The task's own folder and working directory; deleted after the task."""
    blobs: dict[str, Path] = field(default_factory=dict)
    """blob id -> the file that holds it"""
    progress: Callable[..., None] = _no_progress
    """progress(fraction 0..1, note="", text=""); text: everything that the task has written so far"""
    resume: Path | None = None
    """A file with the newest checkpoint of an earlier run of this task; None: start from the beginning. It comes from
    another node: nothing that can execute code may read it."""
    checkpoint: Callable[..., None] = _no_checkpoint
    """checkpoint(data, note=""): everything needed to resume from here, as bytes or as a file in the task's folder,
    which is moved away. The mesh stores it while the task runs on; a newer one replaces it."""
    kept: Callable[[], tuple[int, int]] = _none_kept
    """() -> how many checkpoints of this run the mesh has stored, and how many it could not store."""
    memory_mb: int = 0
    """How much memory it may use beyond that of the idle process; 0: no limit."""
    fault_kinds: bool = False
    """Whether this node accepts payloads that fail on purpose, for tests."""
    grants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the operator of this node allows in addition: setting -> listed values."""
    attach: Callable[[str, Path, str], None] = _not_attached
    """attach(name, file, content_type): a file in the task's folder that belongs to the result, which must be a small
    dict. The mesh stores it as a blob, and the result names it under `files`."""

    def granted(self, setting: str) -> tuple[str, ...]:
        """The values that the operator listed for `setting`, a field of NodeConfig; empty by default."""
        return tuple(self.grants.get(setting, ()))

    def read(self, data: bytes | BlobInput, field: str = "data") -> bytes:
        """The bytes of a `Data` field, whether they came in the payload or as a blob.

        Raises: InputFault for `field`, when it names a blob that the mesh does not have.
        """
        if isinstance(data, bytes):
            return data
        path = self.blobs.get(data.blob)
        if path is None:
            raise InputFault(field, f"names the blob {data.blob}, which the mesh does not have (any more)")
        return path.read_bytes()


Run = Callable[[Any, Context], Any]


@cache
def load(kind: str) -> Run:
    """The workload function of `kind`; imports its module on first use.

    Raises: UnknownKind; ImportError when a library that the kind needs is missing or broken.
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
