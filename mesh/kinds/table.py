"""The table of kinds, the same on every node, and the validation of payloads.

To add a kind: `mesh/kinds/<kind>.py` (its contract), `node/workloads/<kind>.py` (its implementation), a line here.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from mesh.errors import Fault, UnknownKind, bad_input
from mesh.kinds.base import KindSpec, Payload
from mesh.kinds.faults import faults_of

_NAMES = (
    "echo",
    "crypto_mining",
    "scientific_computing",
    "image_processing",
    "database_ops",
    "llm_inference",
    "video_encode_h264",
    "video_encode_h265",
    "video_encode_av1",
    "web_server_load",
    "ml_training",
)


class Kinds(Mapping[str, KindSpec]):
    """The contracts by the names of their kinds. One is loaded when it is first read: a client that submits a task
    needs that of its kind only."""

    def __init__(self, names: Iterable[str]) -> None:
        self._specs: dict[str, KindSpec | None] = dict.fromkeys(names)

    def __getitem__(self, kind: str) -> KindSpec:
        spec = self._specs[kind]
        if spec is None:
            spec = self._specs[kind] = importlib.import_module(f"mesh.kinds.{kind}").SPEC
        return spec

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, kind: object) -> bool:
        return kind in self._specs


KINDS = Kinds(_NAMES)

#: The kinds as an enumeration: `WorkloadType.CRYPTO_MINING == "crypto_mining"`.
WorkloadType = StrEnum(  # pyrefly: ignore[invalid-argument]  # members that are computed; valid at run time
    "WorkloadType", {name.upper(): name for name in KINDS}
)

_BLOB_ID = re.compile(r"b-[A-Za-z0-9_-]{1,64}")


def find(kind: Any) -> KindSpec:
    """The contract of `kind`. Raises: UnknownKind, which lists the existing kinds."""
    try:
        return KINDS[kind]
    except (KeyError, TypeError):
        raise UnknownKind(f"There is no kind {str(kind)[:64]!r}; the kinds are {', '.join(KINDS)}.") from None


def validate(kind: str, payload: Any, closed: bool = False) -> Payload:
    """`payload` (plain data; None: all defaults) as the kind's payload model.

    `closed`: whether the mesh has a key, so that only its members can submit. No caller sets it yet: every mesh is
    open, and fields for members only (code, the name of a model on a hub) are refused here, at ingress and again in
    the worker.

    Raises: UnknownKind; BadInput with one Fault per invalid field.
    """
    spec = find(kind)
    faults: tuple[Fault, ...] = () if closed or not spec.members_only else _members_only(spec, payload)
    checked: Payload | None = None
    try:
        checked = spec.payload.__pydantic_validator__.validate_python({} if payload is None else payload)
    except ValidationError as error:
        faults += faults_of(error, payload, tuple(spec.payload.model_fields))
    if faults or checked is None:
        raise bad_input(f"The payload of {kind} is not valid", faults)
    return checked


def _members_only(spec: KindSpec, payload: Any) -> tuple[Fault, ...]:
    given = payload if isinstance(payload, dict) else {}
    why = "for its members only: this mesh has no key, so anyone can submit to it"
    return tuple(
        Fault(f"payload.{name}", f"{what} {why}")
        for name, what in spec.members_only.items()
        if given.get(name) is not None
    )


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of the kind's payload. Raises: UnknownKind."""
    return find(kind).payload.model_json_schema()


def blob_ids(payload: Any) -> tuple[str, ...]:
    """The ids of all blobs that plain data refers to as {"blob": "b-…"}, each once, in order of appearance."""
    found: dict[str, None] = {}
    waiting = [payload]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            blob = value.get("blob")
            if isinstance(blob, str) and _BLOB_ID.fullmatch(blob):
                found[blob] = None
            waiting.extend(reversed(value.values()))
        elif isinstance(value, (list, tuple)):
            waiting.extend(reversed(value))
    return tuple(found)
