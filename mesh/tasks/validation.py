"""From a wish to a task: everything that is checked at the door, before the bus sees anything. Pure.

Every fault is named at once, those of the envelope and those of the payload.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mesh import lanes, subjects
from mesh.config import MeshConfig
from mesh.errors import BadInput, Fault, UnknownKind, bad_input
from mesh.kinds.table import blob_ids, find, validate
from mesh.messages import Raw, Task, encode
from mesh.scheduling.geo import Point, point, region_at
from mesh.views import SubmitRequest

MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_DELAY_S = 365 * 24 * 3600
MAX_ATTEMPTS = 100
#: MessagePack of the text "blob" as a map key: a payload without it names no blob and needs no walk.
_BLOB_KEY = b"\xa4blob"
NOWHERE: Mapping[str, Point] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked wish: the task (its payload still inside, however large) and where it goes."""

    task: Task
    lane: lanes.Lane
    delay_s: float


def envelope_faults(request: SubmitRequest) -> list[Fault]:
    """Everything that is wrong with a request, its payload aside."""
    faults = lanes.requirement_faults(request.requires) if request.requires != {} else []
    if request.urgency not in subjects.URGENCIES:
        faults.append(Fault("urgency", f"must be one of {', '.join(subjects.URGENCIES)}"))
    for name, value, most in (
        ("timeout_s", request.timeout_s, MAX_TIMEOUT_S),
        ("delay_s", request.delay_s, MAX_DELAY_S),
        ("expires_s", request.expires_s, MAX_DELAY_S),
    ):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            faults.append(Fault(name, "must be a number of seconds"))
        elif not 0 <= value <= most:
            faults.append(Fault(name, f"must lie between 0 and {most} seconds"))
    attempts = request.max_attempts
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 0 <= attempts <= MAX_ATTEMPTS:
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
    """All of a request but its payload, checked once: `map` seals many payloads into one envelope."""

    request: SubmitRequest
    lane: lanes.Lane
    max_attempts: int

    def seal(self, payload: Any, task: str, now: float) -> Prepared:
        """The task for one payload. Raises: BadInput with every fault of the payload."""
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
            expires_at=now + request.delay_s + request.expires_s if request.expires_s else 0.0,
            origin=request.origin,
        )
        return Prepared(sealed, self.lane, float(request.delay_s))


def open_envelope(
    request: SubmitRequest, config: MeshConfig, regions: Collection[str] = (), places: Mapping[str, Point] = NOWHERE
) -> Envelope:
    """Check all of `request` but its payload; `regions`: see `lanes.lane_for`; `places`: see `places.region_at`.

    Raises: UnknownKind, BadInput with every fault of the envelope.
    """
    find(request.kind)
    faults = envelope_faults(request)
    if faults:
        raise bad_input("The request is not valid", faults)
    origin = region_at(request.origin, places)
    lane = lanes.lane_for(request.kind, request.requires, request.urgency, origin, regions)
    return Envelope(request, lane, request.max_attempts or config.max_attempts)


def prepare(
    request: SubmitRequest,
    task: str,
    now: float,
    config: MeshConfig,
    regions: Collection[str] = (),
    places: Mapping[str, Point] = NOWHERE,
) -> Prepared:
    """The task `request` asks for, under the id `task`.

    Raises: UnknownKind; BadInput with every fault, those of the envelope and those of the payload.
    """
    try:
        envelope = open_envelope(request, config, regions, places)
    except UnknownKind:
        raise  # nothing more can be said of its payload
    except BadInput as first:
        try:
            validate(request.kind, request.payload)
        except BadInput as also:
            raise bad_input("The request is not valid", (*first.faults, *also.faults)) from None
        raise
    return envelope.seal(request.payload, task, now)
