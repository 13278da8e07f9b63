"""The names of all subjects, streams, buckets and durable consumers. No other file builds a subject.

A task id is `<submitter>-<n>`: one token in WORK subjects, two tokens (`<submitter>.<n>`) in TASKS subjects, so that a
client receives the updates of all its tasks with one subscription. Tokens consist of A-Z a-z 0-9 _ - only.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mesh.errors import BadInput

# --- streams ---------------------------------------------------------------------------------------
WORK = "WORK"  # work queue: the ingress and the lanes
LATER = "LATER"  # delayed work, as JetStream schedules
TASKS = "TASKS"  # the last message per subject: states and ends
EVENTS = "EVENTS"  # mesh.event.>
DEAD = "DEAD"  # dead.<kind>.<id>
METRICS = "METRICS"  # metric.<kind>.<region>

WORK_SUBJECTS = ("work.*", "work.*.*.*.*")
LATER_SUBJECTS = ("later.at.*", "later.due.*")
LATER_CLOSED = "later.closed.for.good"  # the only subject of LATER while the mesh is merged into another one
TASKS_SUBJECTS = ("task.*.*.state", "task.*.*.end")
TASKS_REPUBLISH = ("task.*.*.*", "task_updates.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}")
EVENTS_SUBJECTS = ("mesh.event.>",)
DEAD_SUBJECTS = ("dead.*.*",)
METRICS_SUBJECTS = ("metric.*.*",)

# --- KV buckets and object stores ------------------------------------------------------------------
KV_NODES = "nodes"
KV_LEASE = "lease"
KV_POOLS = "pools"
KV_PLAN = "plan"
KV_CLAIMS = "claims"
KV_BLOB_REFS = "blobrefs"  # <blob>.<task>: which task names which blob
KV_CHECKPOINTS = "checkpoints"  # <task>: its newest checkpoint, and the run that may replace it
KV_MESH = "mesh"  # the mesh's own records: identity, alarms, bus servers, merge
KV_BENCH = "bench"  # last.<benchmark>.<node>: outcomes; run.<id>: runs under way
KV_SCALING = "scaling"  # policy, intent.<token>, state …: the durable state of the scaler
BENCH_OUTCOMES = "last.*.*"
BLOBS = "blobs"  # object store: blobs expire after blob_ttl_s
BLOBS_KEPT = "blobs-kept"  # object store: blobs are kept until deleted

LEASE_KEY = "leader"
PLAN_KEY = "ranks"
MESH_KEY = "identity"
MERGE_KEY = "merge"  # in KV_MESH: the order to merge this mesh into another one
ALARMS_KEY = "alarms"  # in KV_MESH: the current alarms
BUS_KEY = "bus"  # in KV_MESH: why the bus has fewer copies than it should, as text
RESTART_KEY = "restart"  # in KV_MESH: the node whose turn it is to restart its bus server; it expires
SERVER_KEYS = "server.*"  # in KV_MESH: the bus servers


def server_key(node: str) -> str:
    """server.<node>: the bus server that the node runs"""
    return f"server.{_token(node)}"


def acceptance_key(mesh: str) -> str:
    """accepts.<mesh>, in KV_MESH: that mesh is merged into this one"""
    return f"accepts.{_token(mesh)}"


# --- durables --------------------------------------------------------------------------------------
INGRESS_DURABLE = "ingress"  # on work.*
DUE_DURABLE = "due"  # on later.due.*


def host_of(server: str) -> str:
    """The id of the node that runs the bus server `server`, whose name is <node>~<random>."""
    return server.partition("~")[0]


SERVICE_NAME = "queztl"  # $SRV.PING|INFO|STATS.queztl.<node>

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_matches_task_id = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9]{1,19}").fullmatch
#: What a builder puts between two dots: tokens, pools (`any@<region>`, `node-<id>`) and task ids.
_matches_part = re.compile(r"[A-Za-z0-9_@-]{1,140}").fullmatch
URGENCIES = ("high", "normal", "low")


def is_token(text: str) -> bool:
    """Whether `text` may be one token of a subject, and thus a kind, node id or task id."""
    return _TOKEN.fullmatch(text) is not None


def is_task_id(text: str) -> bool:
    """Whether `text` is `<submitter>-<n>`."""
    return _matches_task_id(text) is not None


class NotAToken(BadInput, ValueError):
    """A name can't be part of a subject."""


def _token(text: str) -> str:
    """`text`. Raises: NotAToken when it can't be one token of a subject."""
    if _matches_part(text) is None:
        raise NotAToken(f"{text[:80]!r} can't be part of a subject")
    return text


#: `_token` for names of which there are few: kinds, pools, urgencies, regions. Checking one again costs a look-up.
_name = lru_cache(maxsize=4096)(_token)


def task_id(submitter: str, number: int | str) -> str:
    """`<submitter>-<n>`"""
    return f"{submitter}-{number}"


def split_task_id(task: str) -> tuple[str, str]:
    """(submitter, n). Raises: ValueError when `task` is not a task id."""
    submitter, dash, number = task.rpartition("-")
    if not dash or not is_token(submitter) or not (number.isascii() and number.isdigit()):
        raise ValueError(f"{task!r} is not a task id")
    return submitter, number


# --- WORK ------------------------------------------------------------------------------------------
def ingress(kind: str) -> str:
    """work.<kind>: where programs without a client publish tasks"""
    return f"work.{_name(kind)}"


@lru_cache(maxsize=4096)
def _lane(kind: str, pool: str, urgency: str) -> str:
    return f"work.{_token(kind)}.{_token(pool)}.{_token(urgency)}"


def lane_subject(kind: str, pool: str, urgency: str, task: str) -> str:
    """work.<kind>.<pool>.<urgency>.<id>"""
    return f"{_lane(kind, pool, urgency)}.{_token(task)}"


def lane_filter(kind: str, pool: str, urgency: str) -> str:
    """work.<kind>.<pool>.<urgency>.*: the filter of a lane's consumer"""
    return f"{_lane(kind, pool, urgency)}.*"


def any_lane(kind: str = "") -> str:
    """work.<kind>.*.*.*: the tasks in all lanes (of one kind)"""
    return f"work.{_name(kind) if kind else '*'}.*.*.*"


def any_lane_of(task: str) -> str:
    """work.*.*.*.<id>: a task in any lane"""
    return f"work.*.*.*.{_token(task)}"


def lane_durable(kind: str, pool: str, urgency: str) -> str:
    """<kind>~<pool>~<urgency>: the durable consumer of a lane"""
    return f"{_name(kind)}~{_name(pool)}~{_name(urgency)}"


def split_durable(durable: str) -> tuple[str, str, str] | None:
    """(kind, pool, urgency); None when `durable` is not the consumer of a lane."""
    parts = durable.split("~")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and parts[2] in URGENCIES else None


def later_at(task: str) -> str:
    """later.at.<id>: a schedule"""
    return f"later.at.{_token(task)}"


def later_due(task: str) -> str:
    """later.due.<id>: where the schedule publishes the task at its time"""
    return f"later.due.{_token(task)}"


def any_later() -> str:
    """later.*.*: all delayed tasks"""
    return "later.*.*"


def any_later_of(task: str) -> str:
    """later.*.<id>: a delayed task, scheduled or due"""
    return f"later.*.{_token(task)}"


# --- TASKS -----------------------------------------------------------------------------------------
def state(task: str) -> str:
    """task.<submitter>.<n>.state"""
    submitter, _, number = _token(task).rpartition("-")
    return f"task.{submitter}.{number}.state"


def end(task: str) -> str:
    """task.<submitter>.<n>.end"""
    submitter, _, number = _token(task).rpartition("-")
    return f"task.{submitter}.{number}.end"


def all_task_updates(submitter: str) -> str:
    """task_updates.<submitter>.*.*: what TASKS has *stored* of a client's tasks, republished by the server"""
    return f"task_updates.{_token(submitter)}.*.*"


def task_updates(submitter: str, number: str) -> str:
    """task_updates.<submitter>.<n>.*: what TASKS has stored of one task"""
    return f"task_updates.{_token(submitter)}.{_token(number)}.*"


# --- core NATS -------------------------------------------------------------------------------------
def heartbeat(node: str) -> str:
    """node.<id>.heartbeat"""
    return f"node.{_token(node)}.heartbeat"


ALL_HEARTBEATS = "node.*.heartbeat"
#: The leader republishes the heartbeats it received; all other nodes subscribe to this.
HEARTBEAT_DIGEST = "mesh.heartbeat_digest"


def death_notice(node: str) -> str:
    """node.<id>.death_notice: the leader declares a node dead, before it reclaims its deliveries"""
    return f"node.{_token(node)}.death_notice"


ALL_DEATH_NOTICES = "node.*.death_notice"


def held(node: str) -> str:
    """node.<id>.held"""
    return f"node.{_token(node)}.held"


ALL_HELD = "node.*.held"


def identity(node: str) -> str:
    """node.<id>.identity: a process says that it runs as this node; another one that does answers"""
    return f"node.{_token(node)}.identity"


def bus_host(node: str) -> str:
    """node.<id>.bus: the leader asks a node to start a bus server, or to stop it"""
    return f"node.{_token(node)}.bus"


def store_report(node: str) -> str:
    """node.<id>.store: whether the bus server of the node stores; see `StoreReport`"""
    return f"node.{_token(node)}.store"


ALL_STORE_REPORTS = "node.*.store"


def disk(node: str) -> str:
    """node.<id>.disk: asks the host of a bus server when its disk last finished a write; see `DiskAnswer`"""
    return f"node.{_token(node)}.disk"


#: What the leader read from the bus servers about the copies of the streams; see `BusReport`.
BUS_REPORT = "mesh.bus_report"


def leave(node: str) -> str:
    """node.<id>.leave: the leader orders a node that the scaler started to finish what it runs and leave"""
    return f"node.{_token(node)}.leave"


def wake(kind: str, pool: str, urgency: str) -> str:
    """lane.<kind>.<pool>.<urgency>.wake: a quiet lane got work (a hint: nodes also list the lanes periodically)"""
    return f"lane.{_name(kind)}.{_name(pool)}.{_name(urgency)}.wake"


ALL_WAKES = "lane.*.*.*.wake"


def cancel(task: str) -> str:
    """cancel.<id>: the node that runs the task ends it (a hint: the `.end` record is authoritative)"""
    return f"cancel.{_token(task)}"


ALL_CANCELS = "cancel.*"


# --- EVENTS, DEAD, METRICS -------------------------------------------------------------------------
def event(type_: str) -> str:
    """mesh.event.<type>"""
    return f"mesh.event.{type_}"


def dead(kind: str, task: str) -> str:
    """dead.<kind>.<id>"""
    return f"dead.{_name(kind)}.{_token(task)}"


def any_dead(kind: str = "") -> str:
    """dead.<kind>.*: all dead letters (of one kind)"""
    return f"dead.{_name(kind) if kind else '*'}.*"


def any_dead_of(task: str) -> str:
    """dead.*.<id>: the dead letter of a task of any kind"""
    return f"dead.*.{_token(task)}"


def metric(kind: str, region: str) -> str:
    """metric.<kind>.<region>"""
    return f"metric.{_name(kind)}.{_name(region or 'none')}"


def bench_outcome(benchmark: str, node: str) -> str:
    """last.<benchmark>.<node>, in KV_BENCH"""
    return f"last.{_token(benchmark)}.{_token(node)}"


def bench_run(run: str) -> str:
    """run.<id>, in KV_BENCH"""
    return f"run.{_token(run)}"


# --- KV_SCALING ------------------------------------------------------------------------------------
SCALING_POLICY = "policy"  # the policy in force
SCALING_STATE = "state"  # what decisions remember from cycle to cycle
SCALING_STATUS = "status"  # the last observation and decision
SCALING_MANUAL = "manual"  # a manual override, and until when it holds
SCALING_PANIC = "panic"  # everything that is paid for stops
SCALING_INTENTS = "intent.*"
SCALING_POLICIES = "version.*"


def scaling_intent(token: str) -> str:
    """intent.<token>: the order of one node, written before it is placed and kept until the node is gone"""
    return f"intent.{_token(token)}"


def scaling_version(number: int) -> str:
    """version.<n>: an earlier policy"""
    return f"version.{number}"
