"""Every subject, stream, bucket and durable name of the mesh. No f-string subject anywhere else.

A task id is `<submitter>-<n>`: one token in WORK subjects, two tokens (`<submitter>.<n>`) in TASKS subjects, so
that a client listens to everything of its own with one subscription. Tokens hold A-Z a-z 0-9 _ - only.
"""

from __future__ import annotations

import re

# --- streams ---------------------------------------------------------------------------------------
WORK = "WORK"  # work queue: doors and lanes
LATER = "LATER"  # delayed work, as JetStream schedules
TASKS = "TASKS"  # last per subject: states and ends
EVENTS = "EVENTS"  # mesh.event.>
DEAD = "DEAD"  # dead.<kind>.<id>
METRICS = "METRICS"  # metric.<kind>.<region>

WORK_SUBJECTS = ("work.*", "work.*.*.*.*")
LATER_SUBJECTS = ("later.at.*", "later.due.*")
LATER_CLOSED = "later.closed.for.good"  # all that LATER takes in a mesh that goes into another one
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
KV_BLOB_REFS = "blobrefs"  # <blob>.<task>: who names which blob
KV_CHECKPOINTS = "checkpoints"  # <task>: its newest checkpoint, and who may replace it
KV_MESH = "mesh"  # the mesh's own facts: id, name, epoch
KV_BENCH = "bench"  # last.<benchmark>.<node>: outcomes; run.<id>: runs under way
KV_SCALING = "scaling"  # policy, intent.<token>, state …: what the scaler must not forget
BENCH_OUTCOMES = "last.*.*"
BLOBS = "blobs"  # object store: gone after blob_ttl_s
BLOBS_KEPT = "blobs-kept"  # object store: kept until deleted

LEASE_KEY = "leader"
PLAN_KEY = "ranks"
MESH_KEY = "identity"
MERGE_KEY = "merge"  # in KV_MESH, of a mesh that goes into another one
ALARMS_KEY = "alarms"  # in KV_MESH: what the master wants people to know
BUS_KEY = "bus"  # in KV_MESH: what stands in the way of as many copies as there should be, in words
SERVER_KEYS = "server.*"  # in KV_MESH: who runs which bus server


def server_key(node: str) -> str:
    """server.<node>: the bus server that node runs"""
    return f"server.{node}"


# --- durables --------------------------------------------------------------------------------------
INGRESS_DURABLE = "ingress"  # on work.*
DUE_DURABLE = "due"  # on later.due.*


def host_of(server: str) -> str:
    """The id of the node that runs the bus server `server`, whose name is <node>~<random>."""
    return server.partition("~")[0]


SERVICE_NAME = "queztl"  # $SRV.PING|INFO|STATS.queztl.<node>

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
URGENCIES = ("high", "normal", "low")


def is_token(text: str) -> bool:
    """Whether `text` may stand as one token of a subject (and as a kind, node id or task id)."""
    return _TOKEN.fullmatch(text) is not None


def task_id(submitter: str, number: int) -> str:
    """`<submitter>-<n>`"""
    return f"{submitter}-{number}"


def split_task_id(task: str) -> tuple[str, str]:
    """(submitter, n). Raises: ValueError when `task` is no task id."""
    submitter, dash, number = task.rpartition("-")
    if not dash or not is_token(submitter) or not (number.isascii() and number.isdigit()):
        raise ValueError(f"{task!r} is no task id")
    return submitter, number


# --- WORK ------------------------------------------------------------------------------------------
def ingress(kind: str) -> str:
    """work.<kind>: what people publish to"""
    return f"work.{kind}"


def lane_subject(kind: str, pool: str, urgency: str, task: str) -> str:
    """work.<kind>.<pool>.<urgency>.<id>"""
    return f"work.{kind}.{pool}.{urgency}.{task}"


def lane_filter(kind: str, pool: str, urgency: str) -> str:
    """work.<kind>.<pool>.<urgency>.*: what one lane's consumer takes"""
    return f"work.{kind}.{pool}.{urgency}.*"


def any_lane_of(task: str) -> str:
    """work.*.*.*.<id>: wherever that task waits"""
    return f"work.*.*.*.{task}"


def lane_durable(kind: str, pool: str, urgency: str) -> str:
    """<kind>~<pool>~<urgency>: a lane's durable consumer"""
    return f"{kind}~{pool}~{urgency}"


def split_durable(durable: str) -> tuple[str, str, str] | None:
    """(kind, pool, urgency), or None when `durable` is no lane."""
    parts = durable.split("~")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and parts[2] in URGENCIES else None


def later_at(task: str) -> str:
    """later.at.<id>: a schedule"""
    return f"later.at.{task}"


def later_due(task: str) -> str:
    """later.due.<id>: what the schedule publishes when its time has come"""
    return f"later.due.{task}"


def any_later_of(task: str) -> str:
    """later.*.<id>"""
    return f"later.*.{task}"


# --- TASKS -----------------------------------------------------------------------------------------
def state(task: str) -> str:
    """task.<submitter>.<n>.state"""
    submitter, _, number = task.rpartition("-")
    return f"task.{submitter}.{number}.state"


def end(task: str) -> str:
    """task.<submitter>.<n>.end"""
    submitter, _, number = task.rpartition("-")
    return f"task.{submitter}.{number}.end"


def all_task_updates(submitter: str) -> str:
    """task_updates.<submitter>.*.*: a client's one subscription; what TASKS *stored*, republished by the server"""
    return f"task_updates.{submitter}.*.*"


def task_updates(submitter: str, number: str) -> str:
    """task_updates.<submitter>.<n>.*: everything stored of one task"""
    return f"task_updates.{submitter}.{number}.*"


# --- core NATS -------------------------------------------------------------------------------------
def heartbeat(node: str) -> str:
    """node.<id>.heartbeat"""
    return f"node.{node}.heartbeat"


ALL_HEARTBEATS = "node.*.heartbeat"
#: the master passes on the beats it heard: what all others listen to
HEARTBEAT_DIGEST = "mesh.heartbeat_digest"


def death_notice(node: str) -> str:
    """node.<id>.death_notice: the leader declares a node dead, before its work goes to others"""
    return f"node.{node}.death_notice"


ALL_DEATH_NOTICES = "node.*.death_notice"


def held(node: str) -> str:
    """node.<id>.held"""
    return f"node.{node}.held"


ALL_HELD = "node.*.held"


def bus_host(node: str) -> str:
    """node.<id>.bus: the master asks a node to run a bus server, or to end it"""
    return f"node.{node}.bus"


def leave(node: str) -> str:
    """node.<id>.leave: the master tells a node that the scaler started to finish what it runs and go"""
    return f"node.{node}.leave"


def wake(kind: str, pool: str, urgency: str) -> str:
    """lane.<kind>.<pool>.<urgency>.wake: a quiet lane got work (a hint; nodes also look by themselves)"""
    return f"lane.{kind}.{pool}.{urgency}.wake"


ALL_WAKES = "lane.*.*.*.wake"


def cancel(task: str) -> str:
    """cancel.<id>: whoever runs that task ends it (a hint; the `.end` record is what counts)"""
    return f"cancel.{task}"


ALL_CANCELS = "cancel.*"


# --- EVENTS, DEAD, METRICS -------------------------------------------------------------------------
def event(type_: str) -> str:
    """mesh.event.<type>"""
    return f"mesh.event.{type_}"


def dead(kind: str, task: str) -> str:
    """dead.<kind>.<id>"""
    return f"dead.{kind}.{task}"


def metric(kind: str, region: str) -> str:
    """metric.<kind>.<region>"""
    return f"metric.{kind}.{region or 'none'}"


def bench_outcome(benchmark: str, node: str) -> str:
    """last.<benchmark>.<node>, in KV_BENCH"""
    return f"last.{benchmark}.{node}"


def bench_run(run: str) -> str:
    """run.<id>, in KV_BENCH"""
    return f"run.{run}"


# --- KV_SCALING ------------------------------------------------------------------------------------
SCALING_POLICY = "policy"  # the policy in force
SCALING_STATE = "state"  # what the decisions remember
SCALING_STATUS = "status"  # what was last seen and decided
SCALING_MANUAL = "manual"  # what a person asked for, and until when
SCALING_PANIC = "panic"  # everything paid is to stop
SCALING_INTENTS = "intent.*"
SCALING_POLICIES = "version.*"


def scaling_intent(token: str) -> str:
    """intent.<token>: one node that was ordered, from before the order until it is gone"""
    return f"intent.{token}"


def scaling_version(number: int) -> str:
    """version.<n>: a policy that was in force"""
    return f"version.{number}"
