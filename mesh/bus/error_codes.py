"""What each refusal of JetStream means: try again, give up, or a request that is wrong.

The codes are those of `server/errors.json` of nats-server 2.15; the comments say where the server sends them. Codes
that this table does not name are judged by their HTTP status.
"""

from __future__ import annotations

from enum import Enum


class Meaning(Enum):
    """What to do about a refusal."""

    TRANSIENT = "the servers are between two states: the same request succeeds when they have settled"
    PERMANENT = "the state of the bus refuses it: the same request fails again until somebody changes that state"
    MISUSE = "the request itself is wrong, whatever the state of the bus is"


#: Codes of nats-server 2.15. One beyond them is of a later version.
KNOWN = range(10002, 10228)

# fmt: off
TRANSIENT: dict[int, str] = {
    10004: "JSClusterIncompleteErr",           # some servers did not answer a listing
    10005: "JSClusterNoPeersErrF",             # a placement lacks servers, which are offline or full
    10006: "JSClusterNotActiveErr",            # JetStream of that server starts or stops
    10007: "JSClusterNotAssignedErr",          # an assignment was rejected by its member, and is withdrawn
    10008: "JSClusterNotAvailErr",             # no leader: of the meta group, a stream or a consumer
    10009: "JSClusterNotLeaderErr",            # the leader changed while it had the request
    10010: "JSClusterRequiredErr",             # JetStream of that server starts or stops; all servers are clustered
    10023: "JSInsufficientResourcesErr",       # a new consumer lacks servers that are online (createGroupForConsumer)
    10035: "JSNoAccountErr",                   # that server has not loaded its accounts yet
    10039: "JSNotEnabledForAccountErr",        # that server has not enabled JetStream yet, or is shutting down
    10041: "JSRaftGeneralErrF",                # Raft refused: not the leader, or a change of members is in progress
    10059: "JSStreamNotFoundErr",              # that server has just started: the mesh removes no stream
    10063: "JSStreamSequenceNotMatchErr",      # a duplicate whose first copy is not applied here yet
    10075: "JSPeerRemapErr",                   # no other server for a copy is online
    10076: "JSNotEnabledErr",                  # JetStream of that server is off, or is shutting down
    10118: "JSStreamOfflineErr",               # every server with a copy of the stream is offline
    10119: "JSConsumerOfflineErr",             # every server with a copy of the consumer is offline
    10124: "JSStreamMoveInProgressErr",        # an earlier change of the copies is not finished
    10158: "JSStreamDuplicateMessageConflict", # the first copy of a message is not committed yet
    10163: "JSStreamExpectedLastSeqPerSubjectNotReady",  # an earlier write of the subject is not applied yet
    10167: "JSStreamTooManyRequests",          # the stream's queue of messages is full
    10202: "JSClusterServerMemberChangeInflightErr",  # an earlier change of members is not finished
    10210: "JSAtomicPublishTooManyInflight",
    10211: "JSBatchPublishTooManyInflight",
    10226: "JSStreamReconfigureInProgressErr", # an earlier change of the copies is not finished
}

PERMANENT: dict[int, str] = {
    10002: "JSAccountResourcesExceededErr",
    10012: "JSConsumerCreateErrF",             # generic, see PASSING_REASONS
    10013: "JSConsumerNameExistErr",
    10014: "JSConsumerNotFoundErr",
    10026: "JSMaximumConsumersLimitErr",
    10027: "JSMaximumStreamsLimitErr",
    10028: "JSMemoryResourcesExceededErr",
    10036: "JSClusterUnSupportFeatureErr",
    10037: "JSNoMessageFoundErr",
    10040: "JSClusterPeerNotMemberErr",
    10043: "JSSequenceNotFoundErrF",
    10044: "JSClusterServerNotMemberErr",
    10047: "JSStorageResourcesExceededErr",
    10048: "JSStreamAssignmentErrF",           # generic
    10049: "JSStreamCreateErrF",               # generic
    10050: "JSStreamDeleteErrF",               # generic
    10051: "JSStreamGeneralErrorF",            # generic
    10057: "JSStreamMsgDeleteFailedF",         # generic
    10058: "JSStreamNameExistErr",
    10062: "JSStreamRestoreErrF",              # generic
    10064: "JSStreamSnapshotErrF",             # generic
    10069: "JSStreamUpdateErrF",               # generic
    10071: "JSStreamWrongLastSequenceErrF",
    10072: "JSTempStorageFailedErr",
    10077: "JSStreamStoreFailedF",             # generic: over a limit of the stream, or its store is closed
    10104: "JSConsumerStoreFailedErrF",        # generic
    10105: "JSConsumerExistingActiveErr",
    10109: "JSStreamSealedErr",
    10110: "JSStreamPurgeFailedF",             # generic
    10111: "JSStreamRollupFailedF",            # generic
    10117: "JSStreamInfoMaxSubjectsErr",
    10122: "JSStreamMaxStreamBytesExceeded",
    10129: "JSStreamReconfigureNotInProgressErr",
    10148: "JSConsumerAlreadyExists",
    10149: "JSConsumerDoesNotExist",
    10164: "JSStreamWrongLastSequenceConstantErr",  # a condition failed, or its first copy is not committed yet
    10180: "JSStreamMinLastSeqErr",
    10185: "JSRequiredApiLevelErr",            # the server is too old
    10194: "JSStreamOfflineReasonErrF",        # a newer server wrote a configuration that this one can't run
    10195: "JSConsumerOfflineReasonErrF",      # the same
    10224: "JSClusterRescueErr",
}
# fmt: on

#: Errors of Raft and of stores that close, within the generic codes ("{err}"): the server or its leader is going.
PASSING_REASONS = (
    "raft: not leader",
    "raft: node is closed",
    "raft: membership change in progress",
    "store is closed",
    "stream closed",
    "no longer leader",
    "consumer not valid",
    "server is not running",
)
_GENERIC = frozenset({10012, 10048, 10049, 10050, 10051, 10057, 10062, 10064, 10069, 10077, 10104, 10110, 10111})

#: Transient refusals that the server gives before it does anything: a message may be sent again without an id. After
#: the others a copy of it may be stored all the same.
NOTHING_DONE = frozenset({10006, 10008, 10009, 10023, 10035, 10039, 10059, 10076, 10118, 10119, 10163, 10167})


def meaning(error_code: int, status: int = 0, description: str = "") -> Meaning:
    """What a refusal means, from its code, its HTTP status and its text. Pure."""
    if error_code in _GENERIC and any(reason in description.lower() for reason in PASSING_REASONS):
        return Meaning.TRANSIENT
    if error_code in TRANSIENT:
        return Meaning.TRANSIENT
    if error_code in PERMANENT:
        return Meaning.PERMANENT
    if error_code in KNOWN:
        return Meaning.MISUSE
    if status in (429, 503):
        return Meaning.TRANSIENT
    return Meaning.MISUSE if 400 <= status < 500 else Meaning.PERMANENT
