"""From a request to a task: all validation before anything is sent to the bus. Pure.

All faults are reported at once, those of the envelope and those of the payload.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from mesh import lanes, subjects
from mesh.config import MeshConfig
from mesh.errors import BadInput, Fault, UnknownKind, bad_input
from mesh.kinds.table import blob_ids, find, validate
from mesh.messages import MAX_ATTEMPTS, Raw, Task, encode
from mesh.scheduling.geo import Point, point, region_at
from mesh.views import SubmitRequest

MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_DELAY_S = 365 * 24 * 3600
#: MessagePack of the map key "blob": a payload without it names no blob and need not be walked.
_BLOB_KEY = b"\xa4blob"
NO_PLACES: Mapping[str, Point] = MappingProxyType({})


class Prepared(msgspec.Struct, frozen=True):
    """A validated request: the task (with its payload inside, however large), its lane and its delay in seconds."""

    task: Task
    lane: lanes.Lane
    delay_s: float


def envelope_faults(request: SubmitRequest) -> list[Fault]:
    """All faults of a request, except those of its payload."""
    faults = lanes.requirement_faults(request.requires) if request.requires != {} else []
    if request.urgency not in subjects.URGENCIES:
        faults.append(Fault("urgency", f"must be one of {', '.join(subjects.URGENCIES)}"))
    for name, value, limit in (
        ("timeout_s", request.timeout_s, MAX_TIMEOUT_S),
        ("delay_s", request.delay_s, MAX_DELAY_S),
        ("expires_s", request.expires_s, MAX_DELAY_S),
    ):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            faults.append(Fault(name, "must be a number of seconds"))
        elif not 0 <= value <= limit:
            faults.append(Fault(name, f"must lie between 0 and {limit} seconds"))
    attempts = request.max_attempts
    is_number = isinstance(attempts, int) and not isinstance(attempts, bool)
    if attempts is not None and not (is_number and 1 <= attempts <= MAX_ATTEMPTS):
        faults.append(Fault("max_attempts", f"must be a whole number from 1 to {MAX_ATTEMPTS}"))
    key = request.idempotency_key
    if not isinstance(key, str) or len(key) > 255 or not lanes.is_sendable(key):
        faults.append(Fault("idempotency_key", "must be a text of at most 255 characters"))
    origin = request.origin
    if origin != "" and not (isinstance(origin, str) and (subjects.is_token(origin) or point(origin))):
        faults.append(Fault("origin", "must be a region (1 to 64 letters, digits, '_' or '-') or LATITUDE,LONGITUDE"))
    return faults


@dataclass(frozen=True, slots=True)
class Envelope:
    """A validated request without its payload: `map` seals many payloads into one envelope."""

    request: SubmitRequest
    lane: lanes.Lane
    max_attempts: int

    def seal(self, payload: Any, task: str, now: float) -> Prepared:
        """The task with this payload, id and submission time (Unix). Raises: BadInput with every fault of it."""
        request = self.request
        validate(request.kind, payload)
        try:
            packed = encode(payload if payload is not None else {})
        except (TypeError, OverflowError, ValueError, RecursionError) as error:
            raise bad_input("The request is not valid", [Fault("payload", f"can't be encoded: {error}")]) from None
        kind, pool, urgency = self.lane
        sealed = Task(
            id=task,
            kind=kind,
            payload=Raw(packed),
            blobs=blob_ids(payload) if _BLOB_KEY in packed else (),
            pool=pool,
            urgency=urgency,
            requires=request.requires,
            submitted_at=now,
            timeout_s=float(request.timeout_s),
            max_attempts=self.max_attempts,
            expires_s=float(request.expires_s),
            origin=request.origin,
        )
        return Prepared(sealed, self.lane, float(request.delay_s))


def open_envelope(
    request: SubmitRequest, config: MeshConfig, regions: Collection[str] = (), places: Mapping[str, Point] = NO_PLACES
) -> Envelope:
    """Validate a request except for its payload; `regions`: see `lanes.lane_for`; `places`: see `geo.region_at`.

    Raises: UnknownKind, BadInput with every fault of the envelope.
    """
    find(request.kind)
    faults = envelope_faults(request)
    if faults:
        raise bad_input("The request is not valid", faults)
    origin = region_at(request.origin, places)
    lane = lanes.lane_for(request.kind, request.requires, request.urgency, origin, regions)
    attempts = config.max_attempts if request.max_attempts is None else request.max_attempts
    return Envelope(request, lane, attempts)


def prepare(
    request: SubmitRequest,
    task: str,
    now: float,
    config: MeshConfig,
    regions: Collection[str] = (),
    places: Mapping[str, Point] = NO_PLACES,
) -> Prepared:
    """Validate a request; the result has the task under the id `task`, submitted at `now` (Unix seconds).

    Raises: UnknownKind; BadInput with every fault, those of the envelope and those of the payload.
    """
    try:
        envelope = open_envelope(request, config, regions, places)
    except UnknownKind:
        raise  # its payload can't be validated
    except BadInput as envelope_error:
        try:
            validate(request.kind, request.payload)
        except BadInput as payload_error:
            faults = (*envelope_error.faults, *payload_error.faults)
            raise bad_input("The request is not valid", faults) from None
        raise
    return envelope.seal(request.payload, task, now)
