"""From the body of a submission to a SubmitRequest: names and types are checked here, values by the mesh. Pure.

A well-formed body is passed on: `Services.accept` checks every value and the payload. Only when a fault is found here,
those checks are made here as well, so that one answer names every fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from api.documents.errors import excerpt
from api.documents.tasks import SubmitBody
from mesh.errors import BadInput, Fault, bad_input
from mesh.kinds.table import KINDS, validate
from mesh.messages import encode
from mesh.spelling import nearest
from mesh.tasks.validation import envelope_faults
from mesh.views import SubmitRequest

FIELDS = frozenset(SubmitBody.__struct_fields__)
_OPTIONS = FIELDS - {"workload_type", "kind", "payload"}
MAX_UNKNOWN = 20
KEY_HEADER = "Idempotency-Key"
#: Headers of messages to the NATS ingress, and common misspellings of their prefix.
_NATS_HEADER = re.compile(r"(x-)?(queztl|quetzl|quetzal|queztal)-")


def read_request(body: dict[str, Any], faults: tuple[Fault, ...] = ()) -> SubmitRequest:
    """The request in `body`; `faults`: those found elsewhere in the same HTTP request.

    Raises: BadInput with every fault of envelope and payload.
    """
    found = [*faults, *_shape_faults(body)]
    kind = body.get("workload_type")
    if kind is None:
        kind = body.get("kind")
    options = {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    requires = options.get("requires")
    if requires is not None and (fault := _requires_fault(requires)):
        found.append(fault)
        del options["requires"]
    if not found:
        return SubmitRequest(kind=str(kind).lower(), payload=body.get("payload"), **options)
    _refuse(found, kind, body.get("payload"), options)


def with_key(
    body: dict[str, Any], keys: Sequence[str], faults: tuple[Fault, ...] = ()
) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """`body` with the key of the headers `Idempotency-Key`, if there are any, and `faults` with those found here.

    A key in double quotes, the form of the draft RFC, is the key without them.
    """
    if not keys:
        return body, faults
    found = {key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key for key in keys}
    in_body = body.get("idempotency_key")
    if in_body is not None and not isinstance(in_body, str):
        return body, faults  # that is a fault of its own
    if in_body:
        found.add(in_body)
    if len(found) > 1:
        return body, (*faults, Fault(KEY_HEADER, "contradicts another key of this request; give only one"))
    if found == {""}:
        return body, (*faults, Fault(KEY_HEADER, "is empty; give a text of 1 to 255 characters"))
    return {**body, "idempotency_key": found.pop()}, faults


def header_faults(names: Iterable[str]) -> tuple[Fault, ...]:
    """Faults of headers that look like those of a submission and are none: `Queztl-Urgency`, `Idempotence-Key`."""
    faults: list[Fault] = []
    for header in names:
        name = header.lower()
        if _NATS_HEADER.match(name):
            field = nearest(name.partition("queztl-")[2] or name, sorted(_OPTIONS))
            faults.append(Fault(excerpt(header), f"is not a header of this API; give {field} in the body"))
        elif "idempot" in name and name != KEY_HEADER.lower():
            faults.append(Fault(excerpt(header), f"is not a header of this API; the nearest is {KEY_HEADER}"))
    return tuple(faults[:MAX_UNKNOWN])


def _shape_faults(body: dict[str, Any]) -> list[Fault]:
    unknown = [name for name in body if not isinstance(name, str) or name not in FIELDS]
    faults = [
        Fault(excerpt(name), f"is not a field of a submission; those are {', '.join(SubmitBody.__struct_fields__)}")
        for name in unknown[:MAX_UNKNOWN]
    ]
    if len(unknown) > MAX_UNKNOWN:
        faults.append(Fault("body", f"has {len(unknown) - MAX_UNKNOWN} more unknown fields"))
    kind, alias = body.get("workload_type"), body.get("kind")
    if kind in (None, "") and alias in (None, ""):
        faults.append(Fault("workload_type", f"is required: one of {', '.join(KINDS)}"))
    elif kind is not None and alias is not None and kind != alias:
        faults.append(Fault("kind", "contradicts workload_type; give only one of them"))
    elif not isinstance(kind if kind is not None else alias, str):
        faults.append(Fault("workload_type" if kind is not None else "kind", "must be text"))
    return faults


def _requires_fault(requires: Any) -> Fault | None:
    if not isinstance(requires, dict):
        return Fault("requires", 'must be an object such as {"cores": 2}')
    try:
        encode(requires)
    except (TypeError, ValueError, OverflowError):
        return Fault("requires", "has a value that can't be transmitted")
    return None


def _refuse(found: list[Fault], kind: Any, payload: Any, options: dict[str, Any]) -> NoReturn:
    found += envelope_faults(SubmitRequest(kind="", **options))
    if isinstance(kind, str) and kind:
        try:
            validate(kind.lower(), payload)
        except BadInput as refused:
            found += refused.faults or (Fault("workload_type", refused.message.rstrip(".")),)
    raise bad_input("The request is not valid", found)
