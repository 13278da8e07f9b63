"""What makes a decoded value unusable: each function gives the fault in words, "" when there is none. Pure.

Ids and names that passed may be used in subjects, file names and keys.
"""

from __future__ import annotations

import math
import re

from mesh.coordination import (
    HostingRequest,
    IdentityClaim,
    MergeAcceptance,
    MergeOrder,
    MeshRecord,
    Plan,
    Pool,
    ServerRecord,
)
from mesh.lanes import LAST, pool_name, requirement_faults
from mesh.messages import (
    MAX_ATTEMPTS,
    BlobRef,
    Heartbeat,
    HeldSet,
    NodeRecord,
    Task,
    TaskEnd,
)
from mesh.subjects import is_task_id, is_token
from mesh.task_states import FINAL


def task_fault(task: Task) -> str:
    """Why a task may not be used."""
    if not is_task_id(task.id):
        return f"{task.id!r:.80} is not a task id"
    if not is_token(task.kind):
        return f"{task.kind!r:.80} can't be a kind"
    return task_options_fault(task)


def task_options_fault(task: Task) -> str:
    """Why a task with a valid id and kind may not be used."""
    # Every node decodes every task that it runs: what a task leaves out is not looked at.
    if not 0 <= task.max_attempts <= MAX_ATTEMPTS:
        return f"max_attempts must be from 0 to {MAX_ATTEMPTS}"
    if not 0.0 <= task.submitted_at + task.timeout_s + task.expires_s < math.inf or task.timeout_s < 0.0:
        return "submitted_at, timeout_s and expires_s must be numbers of seconds from 0"
    if task.requires and (faults := requirement_faults(task.requires)):
        return f"{faults[0].field:.80} {faults[0].problem}"
    if task.payload_ref is not None and (fault := blob_fault(task.payload_ref)):
        return fault
    if task.blobs and not all(map(is_token, task.blobs)):
        return "it names a blob whose id can't be one"
    return ""


def blob_fault(reference: BlobRef | None) -> str:
    """Why a reference to a blob may not be used."""
    if reference is None or is_token(reference.blob):
        return ""
    return f"{reference.blob!r:.80} can't be the id of a blob"


#: A bus server's name, an address, a URL: they become part of a server's configuration.
_is_server_name = re.compile(r"[A-Za-z0-9_.~-]{1,200}").fullmatch
_is_host = re.compile(r"[A-Za-z0-9_.:%\[\]-]{1,255}").fullmatch
_is_bus_url = re.compile(r"(nats|tls)://[A-Za-z0-9_.:%\[\]@~-]{1,300}").fullmatch
#: A subject to publish to: printable, without a space and without wildcards.
_is_subject = re.compile(r"[!-)+-=?-~]{1,512}").fullmatch


def first(*faults: tuple[object, str]) -> str:
    """The text of the first (holds, text) that does not hold."""
    return next((text for holds, text in faults if not holds), "")


def is_token_or_empty(text: str) -> bool:
    """Whether the text is empty or may be one token of a subject."""
    return not text or is_token(text)


def end_fault(end: TaskEnd) -> str:
    """Why a final record may not be used."""
    return outcome_fault(end) if is_task_id(end.id) else f"{end.id!r:.80} is not a task id"


def outcome_fault(end: TaskEnd) -> str:
    """Why a final record with a valid id may not be used."""
    if end.state not in FINAL:
        return f"{end.state!r:.80} is not a final state"
    return "" if end.result_ref is None else blob_fault(end.result_ref)


def heartbeat_fault(heartbeat: Heartbeat) -> str:
    """Why a heartbeat may not be used."""
    rates = heartbeat.rates.values()
    return first(
        (is_token(heartbeat.node), "its node can't be the id of one"),
        (is_token_or_empty(heartbeat.incarnation), "its incarnation can't be one"),
        (heartbeat.slots >= 0 and 0 <= heartbeat.interval_s < math.inf, "its slots or interval are no amounts"),
        (all(0 <= mean_s < math.inf and number >= 0 for mean_s, number in rates), "its rates are no amounts"),
    )


def node_fault(node: NodeRecord) -> str:
    """Why a node record may not be used."""
    return first(
        (is_token(node.id), "its id can't be that of a node"),
        (is_token_or_empty(node.incarnation), "its incarnation can't be one"),
        (is_token_or_empty(node.region), "its region can't be one"),
        (node.slots >= 0, "its slots are no amount"),
        (all(0 <= speed < math.inf for speed in node.capabilities.speeds.values()), "its speeds are no times"),
    )


def held_fault(held: HeldSet) -> str:
    """Why a set of held deliveries may not be used."""
    return first(
        (is_token(held.node), "its node can't be the id of one"),
        (all(_is_subject(delivery.reply) for delivery in held.held), "it names what can't be an ack subject"),
    )


def plan_fault(plan: Plan) -> str:
    """Why a placement plan may not be used."""
    priorities = (rank for ranks in plan.ranks.values() for rank in ranks.values())
    return first(
        (all(0 <= rank <= LAST for rank in priorities), f"a priority is not from 0 to {LAST}"),
        (all(map(is_token_or_empty, plan.regions)), "it names what can't be a region"),
        (math.isfinite(plan.made_at), "made_at is not a time"),
    )


def pool_fault(pool: Pool) -> str:
    """Why a pool may not be used."""
    if faults := requirement_faults(pool.requires):
        return f"{faults[0].field:.80} {faults[0].problem}"
    return first((pool.name == pool_name(pool.requires), "its name is not that of its requirements"))


def routes_fault(routes: tuple[tuple[str, int], ...]) -> str:
    """Why routes may not be used."""
    return first((all(_is_host(host) and 0 < port < 65536 for host, port in routes), "it names what can't be a route"))


def server_fault(server: ServerRecord) -> str:
    """Why the record of a bus server may not be used."""
    return routes_fault(server.routes) or first(
        (is_token(server.node), "its node can't be the id of one"),
        (_is_server_name(server.name), "its name can't be that of a bus server"),
        (all(map(_is_bus_url, server.client_urls)), "it names what can't be the URL of a bus"),
    )


def request_fault(request: HostingRequest) -> str:
    """Why a request about a bus server may not be used."""
    return routes_fault(request.routes) or first(
        (request.do in ("host", "stop", "restart"), "it asks for neither host, stop nor restart"),
        (not request.name or _is_server_name(request.name), "its name can't be that of a bus server"),
    )


def merge_fault(order: MergeOrder) -> str:
    """Why an order to merge may not be used."""
    return first(
        (is_token(order.into), "the other mesh has no valid id"),
        (order.urls and all(map(_is_bus_url, order.urls)), "it names no valid URLs of a bus"),
        (order.phase in ("drain", "moved"), "its phase is unknown"),
        (is_token_or_empty(order.mover), "its mover can't be the id of a node"),
        (is_token_or_empty(order.token) and order.work_max_bytes >= -1, "its token or its limit can't be one"),
    )


def acceptance_fault(acceptance: MergeAcceptance) -> str:
    """Why the acceptance of another mesh may not be used."""
    return first(
        (is_token(acceptance.source) and is_token(acceptance.token), "it names no order"),
        (acceptance.phase in ("drain", "moved"), "its phase is unknown"),
    )


def identity_fault(claim: IdentityClaim) -> str:
    """Why the claim of an identity may not be used."""
    return first(
        (is_token(claim.node), "it names no node"),
        (is_token(claim.incarnation) and is_token(claim.session), "it names no process"),
        (claim.ticket >= 0 and claim.connections >= 0, "its numbers can't be negative"),
        (is_token_or_empty(claim.boot_id) and is_token_or_empty(claim.machine_id), "its machine has no valid id"),
    )


def mesh_fault(record: MeshRecord) -> str:
    """Why the record of the mesh may not be used."""
    return first(
        (is_token(record.id), "it has no valid id"),
        (is_token(record.epoch), "it has no valid epoch"),
        (is_token_or_empty(record.founder), "its founder can't be the id of a node"),
        (math.isfinite(record.founded_at), "founded_at is not a time"),
    )
