"""The ingress: turns messages that plain NATS clients publish to `work.<kind>` into tasks in their lanes.

All nodes share one consumer. A node checks the message and publishes its task under the id `<stream epoch>-<sequence>`,
so that doing it twice changes nothing. An invalid message gets a result record that names every wrong field. Delayed
tasks that are due enter their lanes in the same way.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import msgspec

from mesh import decoding, subjects
from mesh.bus.client import Bus, Message
from mesh.bus.publisher import RESENT_HEADER
from mesh.bus.replies import PullEnd, parse_ack_subject, pull_end
from mesh.bus.streams import GROUP
from mesh.decoding import Unreadable
from mesh.errors import BadInput, Busy, Fault, QueztlError, bad_input
from mesh.messages import TaskEnd, TaskError, decode_any
from mesh.spelling import nearest, similarity
from mesh.tasks import dead_letters, records
from mesh.tasks.submitter import Submitter
from mesh.tasks.validation import Prepared
from mesh.views import SubmitRequest

log = logging.getLogger(__name__)
BATCH = 64
PULL_S = 2.0
#: Headers of an ingress message -> the fields beside the payload that they set, as in REST.
OPTION_HEADERS = {
    "Queztl-Urgency": "urgency",
    "Queztl-Timeout-S": "timeout_s",
    "Queztl-Max-Attempts": "max_attempts",
    "Queztl-Requires": "requires",
    "Queztl-Origin": "origin",
}
_OPTIONS = {header.lower(): option for header, option in OPTION_HEADERS.items()}
#: A header this similar to a valid one is taken for a mistyped one, 0 to 1: "Quetzal-Urgency" is, "Priority" is not.
ALIKE = 0.8


def decode_payload(data: bytes, content_type: str) -> Any:
    """The payload of an ingress message; its content type, else its first byte, tells JSON from MessagePack.

    Raises: BadInput.
    """
    if not data.strip():
        return None
    packed = "msgpack" in content_type or ("json" not in content_type and data.lstrip()[:1] not in b'{["n')
    try:
        return decode_any(data) if packed else json.loads(data)
    except RecursionError:
        raise BadInput("the message is nested too deeply; send a flatter object") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"the message is neither JSON nor MessagePack ({error})") from None
    except ValueError as error:
        hint = 'send an object such as {"seconds": 2}'
        raise BadInput(f"the message is not valid JSON ({error}); {hint}") from None


def request_of(kind: str, data: bytes, headers: dict[str, str] | None) -> SubmitRequest:
    """The request in an ingress message. Raises: BadInput, with every wrong header."""
    options: dict[str, Any] = {}
    content_type, faults = "", list[Fault]()
    for header, text in (headers or {}).items():
        option = _OPTIONS.get(header.lower())
        if header.lower() == "content-type":
            content_type = text.lower()
        elif option is None:
            faults += _mistyped(header)
        elif option in options:
            faults.append(Fault(header[:80], "is given more than once"))
        elif option in ("urgency", "origin"):
            options[option] = text
        else:
            try:
                options[option] = json.loads(text)
            except (ValueError, RecursionError):
                faults.append(Fault(header, f"must be valid JSON, not {text[:80]!r}"))
    if faults:
        raise bad_input("The headers of the message are not valid", faults)
    return SubmitRequest(kind, decode_payload(data, content_type), **options)


def _mistyped(header: str) -> tuple[Fault, ...]:
    """The fault of a header that is, or looks like, one of Queztl's and is not valid."""
    valid = nearest(header, OPTION_HEADERS)
    name = header.lower()
    if name == RESENT_HEADER.lower() or not (name.startswith("queztl-") or similarity(header, valid) >= ALIKE):
        return ()
    return (Fault(header[:80], f"is not a header of Queztl; the nearest is {valid}"),)


class Ingress:
    """One node's share of the ingress."""

    def __init__(self, bus: Bus, submitter: Submitter, epoch: str, node: str) -> None:
        self._bus, self._submitter, self._epoch, self._node = bus, submitter, epoch, node

    async def run(self) -> None:
        """Take ingress messages and due tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pull(subjects.WORK, subjects.INGRESS_DURABLE, self._take_in), name="ingress pulls")
            group.create_task(self._pull(subjects.LATER, subjects.DUE_DURABLE, self._move_due), name="due pulls")

    async def _pull(self, stream: str, durable: str, handle: Callable[[Message], Awaitable[None]]) -> None:
        inbox = self._bus.new_inbox()
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        subscription = await self._bus.subscribe(inbox, arrived.put_nowait)
        try:
            while True:
                self._bus.pull(stream, durable, inbox, batch=BATCH, expires_s=PULL_S, group=GROUP, priority=5)
                await self._drain(arrived, handle)
        finally:
            await subscription.close()

    async def _drain(self, arrived: asyncio.Queue[Message], handle: Callable[[Message], Awaitable[None]]) -> None:
        """Handle the messages of one pull, until its status message comes, or nothing comes."""
        taken = 0
        while taken < BATCH:
            try:
                async with asyncio.timeout(PULL_S + 1.0):
                    message = await arrived.get()
            except TimeoutError:
                return
            if not message.reply:
                if pull_end(message) is not PullEnd.EXPIRED:
                    await asyncio.sleep(0.5)  # there is no such consumer yet, or its leader is changing
                return
            taken += 1
            try:
                await handle(message)
                self._bus.ack(message.reply)
            except QueztlError as error:
                delay_s = error.retry_after_s if isinstance(error, Busy) else 2.0
                log.warning("could not take in an ingress message; trying again in %g s: %s", delay_s, error)
                self._bus.nak(message.reply, delay_s)

    async def _take_in(self, message: Message) -> None:
        """Take in one message of `work.<kind>`. Raises: Busy, BusUnavailable; then it is repeated."""
        kind = message.subject.partition(".")[2]
        _, sequence, _ = parse_ack_subject(message.reply)
        task = subjects.task_id(self._epoch, sequence)
        try:
            request = request_of(kind, message.data, message.headers)
            await self._submitter.learn_regions(request)
            prepared = self._submitter.prepare(request, task)
            for blob in prepared.task.blobs:
                await self._bus.objects.info(blob)
        except QueztlError as refused:
            if isinstance(refused, Busy):
                raise  # the task itself is valid
            # Whoever publishes without a reply subject does not learn the sequence, and so not where this is recorded.
            log.warning("refused a message on %s: %s; it is the failed task %s", message.subject, refused, task)
            await records.write_end(self._bus, self._refusal(task, kind, refused))
            return
        await self._submitter.publish(prepared)

    async def _move_due(self, message: Message) -> None:
        """Publish one delayed task that is due. Raises: Busy, BusUnavailable; then it is repeated."""
        task = decoding.due_task(message.subject, message.data)
        if isinstance(task, Unreadable):
            sequence = parse_ack_subject(message.reply)[1]
            await dead_letters.bury_unreadable(
                self._bus, self._node, message.subject, sequence, message.data, task.reason
            )
            return
        await self._submitter.publish(Prepared(task, (task.kind, task.pool, task.urgency), 0.0))

    def _refusal(self, task: str, kind: str, refused: QueztlError) -> TaskEnd:
        faults = refused.faults if isinstance(refused, BadInput) else ()
        error = TaskError(refused.code, refused.message, tuple((fault.field, fault.problem) for fault in faults))
        return TaskEnd(id=task, kind=kind, state="failed", node=self._node, ended_at=time(), error=error)
