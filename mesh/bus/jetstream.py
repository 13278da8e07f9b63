"""JetStream on a connection: streams, consumers, stored messages, and what a consumer says about its deliveries.

No other package knows the names of the API, its JSON, or the bodies of acknowledgements. `store` and `post` send again
what the bus did not confirm when that is harmless, and report it when it is not.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from mesh.bus.connection import Connection
from mesh.bus.errors import (
    CONSUMER_NOT_FOUND,
    MESSAGE_NOT_FOUND,
    NOT_YET,
    STREAM_NOT_FOUND,
    ApiError,
    NobodyAnswers,
    NotNow,
    answer_of,
    api_error,
    is_gone,
)
from mesh.bus.publisher import Publisher, Settled
from mesh.bus.replies import (
    ConsumerInfo,
    ConsumerList,
    StoredMessage,
    StreamInfo,
    StreamList,
    consumer_info,
    stored_message,
    stream_info,
)
from mesh.config import MeshConfig
from mesh.errors import BusUnavailable, QueztlError

_NS = 1_000_000_000
#: Prefixes of the subjects of submissions.
SUBMISSIONS = ("work.", "later.at.")
#: Sequences of a stream are 64-bit numbers from 1 on.
MAX_SEQUENCE = (1 << 64) - 1
_ACK, _NAK, _TERM, _IN_PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"
#: A subject of no message.
_NO_SUBJECT = "no.message.has.this.subject"
#: Pause before an API call is repeated after a transient refusal, seconds.
NOT_YET_S = 0.25
#: Changes of streams and consumers are replicated before they are confirmed: they get more time, seconds.
_CHANGE_S = 10.0


class JetStream(Connection):
    """A connection that also speaks JetStream. All calls raise BusUnavailable while the bus does not answer."""

    def __init__(self, config: MeshConfig) -> None:
        super().__init__(config)
        self._publisher = Publisher(self)

    async def _open(self, servers: list[str], attempts: int, **options: Any) -> None:
        await super()._open(servers, attempts, **options)
        await self._publisher.start()

    async def close(self) -> None:
        """Give up unconfirmed messages, send what is pending, then close the connection."""
        self._publisher.stop()
        await super().close()

    async def _on_reconnected(self) -> None:
        self._publisher.resend_all()
        await super()._on_reconnected()

    async def api(
        self,
        endpoint: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = 5.0,
        repeat: bool = True,
        absent_s: float = math.inf,
    ) -> dict[str, Any]:
        """One call of the JetStream API: `endpoint` without the leading `$JS.API.`; `repeat`: see `request`.

        A transient refusal (`error_codes.py`) is not final: the call is repeated until `timeout_s` has passed, because
        elections and restarts end within seconds; without `repeat` only while there is no leader. That there is no such
        stream counts as transient, too; `absent_s`: for how long at most.
        Raises: ApiError (the server's refusal), BusUnavailable (NotNow when a transient refusal lasts).
        """
        data, clock = json.dumps(body).encode() if body is not None else b"", asyncio.get_running_loop().time
        subject, began = f"$JS.API.{endpoint}", clock()
        deadline = began + timeout_s
        refused: ApiError | None = None
        while True:
            try:
                reply = await self.request(subject, data, max(0.01, deadline - clock()), repeat=repeat)
            except NobodyAnswers:
                if not repeat or clock() + NOT_YET_S > deadline:
                    raise
            except BusUnavailable as silence:
                raise (refused or silence) from None  # the reason that was given, rather than the silence after it
            else:
                document = answer_of(reply.data)
                error = document.get("error")
                if error is None:
                    return document
                refused = api_error(error)
                is_passing = isinstance(refused, NotNow) and (repeat or refused.error_code == NOT_YET)
                if not is_passing or clock() + NOT_YET_S > deadline:
                    raise refused
                if refused.error_code == STREAM_NOT_FOUND and clock() - began >= absent_s:
                    raise refused
            await asyncio.sleep(NOT_YET_S)

    async def check_ready(self, timeout_s: float) -> None:
        """Return once JetStream answers. Raises: BusUnavailable after `timeout_s`, ApiError."""
        await self.api("INFO", timeout_s=timeout_s)

    # --- writing ------------------------------------------------------------------------------------
    async def store(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str = "",
        expect_last: int | None = None,
        ttl_s: float = 0,
        headers: Mapping[str, str] | None = None,
        resend: bool | None = None,
        timeout_s: float = 10.0,
    ) -> int:
        """Publish into a stream and wait for the confirmation; returns the sequence.

        `msg_id`: the stream drops a second message with the same id. `expect_last`: store only if this is the last
        sequence of the subject. `resend` (default: when `msg_id` is set): send again after a reconnect, or when the
        server is silent. Raises: WrongSequence, StorageFull, Busy, BusUnavailable (it is unknown then whether the
        message was stored).
        """
        return await self._publisher.store(
            subject, data, msg_id, expect_last, ttl_s, headers, bool(msg_id) if resend is None else resend,
            timeout_s,
        )  # fmt: skip

    def post(self, subject: str, data: bytes, headers: bytes, settled: Settled) -> None:
        """`store` for the hot path: sent again until the bus answers, then `settled(confirmation, error)` is called."""
        self._publisher.post(subject, data, headers, settled, resend=True)

    def refuse_pending(self, error: QueztlError) -> None:
        """Give up the submissions that wait for their confirmation: the bus can store nothing now. What nodes store
        about running tasks stays, and is sent again until it can be stored."""
        self._publisher.refuse(SUBMISSIONS, error)

    @property
    def unconfirmed(self) -> int:
        """Number of stored messages that the bus has not confirmed yet."""
        return self._publisher.unconfirmed

    # --- reading, at the stream's leader ------------------------------------------------------------
    async def read_last(self, stream: str, subject: str, absent_s: float = math.inf) -> StoredMessage | None:
        """The last message on `subject`, wildcards allowed; None when there is none; `absent_s`: see `api`.

        Raises: ApiError.
        """
        return await self._read(stream, {"last_by_subj": subject}, absent_s)

    async def read_at(self, stream: str, sequence: int) -> StoredMessage | None:
        """The message with that sequence; None when it is gone, or was never there. Raises: ApiError."""
        if not 0 < sequence <= MAX_SEQUENCE:
            return None  # the server calls such a number a bad request
        return await self._read(stream, {"seq": sequence})

    async def read_next(self, stream: str, subject: str, start: int) -> StoredMessage | None:
        """The first message on `subject`, wildcards allowed, from sequence `start` on. Raises: ApiError."""
        return await self._read(stream, {"seq": start, "next_by_subj": subject})

    async def _read(self, stream: str, query: dict[str, Any], absent_s: float = math.inf) -> StoredMessage | None:
        try:
            return stored_message((await self.api(f"STREAM.MSG.GET.{stream}", query, absent_s=absent_s))["message"])
        except ApiError as error:
            if error.error_code == MESSAGE_NOT_FOUND:
                return None
            raise

    # --- deliveries ---------------------------------------------------------------------------------
    def pull(
        self,
        stream: str,
        consumer: str,
        inbox: str,
        *,
        batch: int,
        expires_s: float,
        group: str,
        priority: int,
        max_bytes: int = 0,
    ) -> None:
        """Ask a pull consumer for up to `batch` messages within `expires_s`; they arrive at `inbox`.

        `replies.parse_ack_subject` reads a message's reply subject; a message without one ends the pull, see
        `replies.pull_end`. `group`, `priority`: the consumer's priority group, lower numbers are served first.
        """
        body = {"batch": batch, "expires": int(expires_s * _NS), "group": group, "priority": priority}
        if max_bytes:
            body["max_bytes"] = max_bytes
        self.send(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps(body).encode(), inbox)

    def ack(self, reply: str) -> None:
        """Have a delivered message removed: it is settled. Sent with the next write, see `send_deferred`.

        The server does not fence any of the four: a late one applies to whoever holds the message by then.
        """
        self.send_deferred(reply, _ACK)

    def nak(self, reply: str, delay_s: float | None = None) -> None:
        """Return a delivered message, to be delivered again at once or after `delay_s`."""
        body = _NAK if delay_s is None else b"%s %s" % (_NAK, json.dumps({"delay": int(delay_s * _NS)}).encode())
        self.send(reply, body)

    def term(self, reply: str) -> None:
        """Have a delivered message removed because it can never be processed."""
        self.send(reply, _TERM)

    def in_progress(self, reply: str) -> None:
        """Restart the acknowledgement timeout (`ack_wait`) of a delivered message."""
        self.send(reply, _IN_PROGRESS)

    # --- streams ------------------------------------------------------------------------------------
    async def stream_info(self, stream: str, subject: str = "", timeout_s: float = 5.0) -> StreamInfo:
        """One stream; with `subject` also how many messages are on each subject that matches. Raises: ApiError."""
        body = {"subjects_filter": subject} if subject else None
        return stream_info(await self.api(f"STREAM.INFO.{stream}", body, timeout_s))

    async def list_streams(self) -> StreamList:
        """Every stream. Raises: ApiError."""
        streams: dict[str, StreamInfo] = {}
        silent: set[str] = set()
        while True:
            answer = await self.api("STREAM.LIST", {"offset": len(streams.keys() | silent)})
            page = {info.name: info for info in map(stream_info, answer.get("streams") or ())}
            missing = {str(name) for name in answer.get("missing") or ()}
            streams |= page
            silent |= missing
            # The server counts silent streams in its pages. A stream without any copy is in both lists.
            if not (page or missing) or len(streams.keys() | silent) >= int(answer.get("total", 0)):
                return StreamList(list(streams.values()), sorted(silent - streams.keys()))

    async def create_stream(self, config: Mapping[str, Any]) -> None:
        """Create a stream. Raises: ApiError (STREAM_NAME_IN_USE when there is one with another configuration)."""
        await self.api(f"STREAM.CREATE.{config['name']}", config, timeout_s=_CHANGE_S)

    async def update_stream(self, stream: str, **changes: Any) -> None:
        """Change fields of a stream's configuration. Raises: ApiError."""
        config = (await self.stream_info(stream)).config
        await self.api(f"STREAM.UPDATE.{stream}", {**config, **changes}, timeout_s=_CHANGE_S)

    async def purge(self, stream: str, subject: str) -> None:
        """Remove all messages on `subject`, wildcards allowed. Raises: ApiError."""
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def append_entry(self, stream: str) -> None:
        """Append to the Raft log of a stream without changing the stream: a purge that matches no message.

        Raises: ApiError.
        """
        await self.purge(stream, _NO_SUBJECT)

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Remove one message, without overwriting it on disk; one that is gone is no error. Raises: ApiError."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except ApiError as error:
            if not is_gone(error):
                raise

    async def move_leader(self, stream: str, server: str) -> None:
        """Have the leader of `stream` hand over to the copy on `server`. Raises: ApiError."""
        body = {"placement": {"preferred": server}}
        await self.api(f"STREAM.LEADER.STEPDOWN.{stream}", body, repeat=False)

    # --- consumers ----------------------------------------------------------------------------------
    async def create_consumer(self, stream: str, config: Mapping[str, Any], timeout_s: float = _CHANGE_S) -> None:
        """Create a durable consumer with one filter subject; an equal one may exist. Raises: ApiError."""
        endpoint = f"CONSUMER.CREATE.{stream}.{config['durable_name']}.{config['filter_subject']}"
        body = {"stream_name": stream, "config": config, "action": ""}
        await self.api(endpoint, body, timeout_s, absent_s=_CHANGE_S)

    async def delete_consumer(self, stream: str, consumer: str, timeout_s: float = 5.0) -> None:
        """Remove a consumer; one that is gone is no error. Raises: ApiError."""
        try:
            await self.api(f"CONSUMER.DELETE.{stream}.{consumer}", timeout_s=timeout_s)
        except ApiError as error:
            if error.error_code != CONSUMER_NOT_FOUND:
                raise

    async def list_consumers(self, stream: str, timeout_s: float = 5.0) -> ConsumerList:
        """Every consumer of a stream. Raises: ApiError."""
        consumers: dict[str, ConsumerInfo] = {}
        silent: set[str] = set()
        while True:
            answer = await self.api(f"CONSUMER.LIST.{stream}", {"offset": len(consumers.keys() | silent)}, timeout_s)
            page = {info.name: info for info in map(consumer_info, answer.get("consumers") or ())}
            missing = {str(name) for name in answer.get("missing") or ()}
            consumers |= page
            silent |= missing
            # The server counts silent consumers in its pages, as in STREAM.LIST.
            if not (page or missing) or len(consumers.keys() | silent) >= int(answer.get("total", 0)):
                return ConsumerList(list(consumers.values()), sorted(silent - consumers.keys()))
