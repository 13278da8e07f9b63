"""The raw limit: the same broker with the same guarantees, through nats-py alone, tuned.

Publish 64 B into a work queue (PubAck counted) -> pull -> an empty handler, in a worker process -> publish the result
into a second stream, its PubAck awaited -> ack. The submitter is the benchmark, the worker a process of its own
(`python -m bench.harness.raw URL`), so that the work is split between processes as it is for the mesh.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import nats
import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.harness.measure import BenchFailed, Round
from bench.harness.pacing import evenly

WORK, RESULTS, WORKER = "RAW", "RAWRES", "raw"
BATCH = 200
PAYLOAD_BYTES = 64
ROUND_WITHIN_S = 120.0


async def connect(urls: list[str]) -> Client:
    """A connection that does not validate subjects when it publishes."""
    return await nats.connect(servers=urls, skip_subject_validation=True, error_cb=_ignore)


async def _ignore(error: Exception) -> None:
    """Ignore errors: a failure shows in the counts, and a node that leaves closes this connection."""


class Worker:
    """Pulls 200 messages at a time, again when half of them are left, and answers each with its own payload."""

    def __init__(self, client: Client) -> None:
        self._client, self._left = client, 0
        self._box, self._acks = client.new_inbox(), client.new_inbox()
        self._open: dict[int, str] = {}
        self._number = 0
        self._ask = json.dumps({"batch": BATCH, "expires": 30_000_000_000}).encode()

    async def run(self) -> None:
        """Work until the process is ended."""
        subscribe = self._client.subscribe
        await subscribe(self._box, cb=self._on_task, pending_msgs_limit=10**6, pending_bytes_limit=-1)
        await subscribe(f"{self._acks}.*", cb=self._on_stored, pending_msgs_limit=10**6, pending_bytes_limit=-1)
        await self._pull()
        print("ready", flush=True)
        await asyncio.Event().wait()

    async def _pull(self) -> None:
        self._left += BATCH
        await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.{WORKER}", self._ask, reply=self._box)

    async def _on_task(self, message: Msg) -> None:
        if not message.reply:  # a status: the pull has expired
            self._left = 0
            await self._pull()
            return
        self._left -= 1
        if self._left <= BATCH // 2:
            await self._pull()
        self._number = number = self._number + 1
        self._open[number] = message.reply
        result = "raw.res." + message.subject[9:]
        await self._client.publish(result, message.data, reply=f"{self._acks}.{number}")

    async def _on_stored(self, message: Msg) -> None:
        reply = self._open.pop(int(message.subject.rpartition(".")[2]))
        if b'"error"' not in message.data:
            await self._client.publish(reply, b"+ACK")


class Raw:
    """The submitter; `async with Raw(urls) as raw: await raw.round(20_000, 1000)`."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._sent_at: dict[int, float] = {}
        self._latencies_s: list[float] = []
        self._worker: asyncio.subprocess.Process | None = None
        self._tasks = self._window = self._sent = self._accepted = self._ended = 0
        self._wrong = ""

    async def __aenter__(self) -> Raw:
        self._client = await connect(self._urls)
        await self._remove()
        base: dict[str, Any] = {"storage": "file", "placement": {"tags": ["voter"]}}
        work = {"name": WORK, "subjects": ["raw.work.>"], "retention": "workqueue", "discard": "new"}
        await self._api(f"STREAM.CREATE.{WORK}", base | work)
        await self._api(f"STREAM.CREATE.{RESULTS}", base | {"name": RESULTS, "subjects": ["raw.res.>"]})
        consumer = {"durable_name": WORKER, "ack_policy": "explicit", "max_ack_pending": 20_000}
        body = {"stream_name": WORK, "config": consumer}
        await self._api(f"CONSUMER.DURABLE.CREATE.{WORK}.{WORKER}", body)
        self._worker = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "bench.harness.raw", *self._urls, stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent, env={"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )  # fmt: skip
        assert self._worker.stdout is not None
        if await self._worker.stdout.readline() != b"ready\n":
            raise BenchFailed("the raw worker did not start")
        self._box = self._client.new_inbox()
        unlimited = {"pending_msgs_limit": 10**6, "pending_bytes_limit": -1}
        await self._client.subscribe(f"{self._box}.*", cb=self._on_accepted, **unlimited)
        await self._client.subscribe("raw.res.*", cb=self._on_result, **unlimited)
        await self._client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.kill()
            await self._worker.wait()
        await self._remove()
        await self._client.close()

    def cpu_s(self) -> float:
        """CPU seconds of the worker so far."""
        assert self._worker is not None
        return sum(psutil.Process(self._worker.pid).cpu_times()[:2])

    async def round(self, tasks: int, window: int) -> Round:
        """Run `tasks` tasks, at most `window` at a time. Raises: BenchFailed (a wrong, missing or late answer)."""
        self._begin(tasks, window)
        began = time.perf_counter()
        await self._fill()
        try:
            async with asyncio.timeout(ROUND_WITHIN_S):
                await self._done
        except TimeoutError:
            raise BenchFailed(f"raw: {self._ended} of {tasks} tasks ended within {ROUND_WITHIN_S:g} s") from None
        took_s = time.perf_counter() - began
        self._check_answers()
        await self._api(f"STREAM.PURGE.{RESULTS}")
        return Round(tasks, took_s)

    async def paced(self, rate_per_s: float, tasks: int) -> list[float]:
        """Run an open loop, as for the mesh; returns the seconds from publishing to the result. Raises: BenchFailed."""
        self._begin(tasks, tasks)
        self._sent_at.clear()
        self._latencies_s.clear()
        try:
            async with asyncio.timeout(ROUND_WITHIN_S):
                async with asyncio.TaskGroup() as group:
                    await evenly(rate_per_s, tasks, lambda _: group.create_task(self._send_one()))
                await self._done
        except TimeoutError:
            raise BenchFailed(f"raw: {self._ended} of {tasks} tasks ended within {ROUND_WITHIN_S:g} s") from None
        self._check_answers()
        self._sent_at.clear()
        return list(self._latencies_s)

    def _begin(self, tasks: int, window: int) -> None:
        self._tasks, self._window = tasks, window
        self._sent = self._accepted = self._ended = 0
        self._wrong = ""
        self._done = asyncio.get_running_loop().create_future()

    def _check_answers(self) -> None:
        if self._wrong:
            raise BenchFailed(f"raw: {self._wrong}")

    async def _send_one(self) -> None:
        self._sent = number = self._sent + 1
        self._sent_at[number] = time.perf_counter()
        await self._client.publish(f"raw.work.{number}", payload(number), reply=f"{self._box}.{number}")

    async def _fill(self) -> None:
        publish, box = self._client.publish, self._box
        last = min(self._tasks, self._ended + self._window)
        while self._sent < last:
            self._sent = number = self._sent + 1
            await publish(f"raw.work.{number}", payload(number), reply=f"{box}.{number}")

    async def _on_accepted(self, message: Msg) -> None:
        if b'"error"' in message.data:
            self._wrong = f"the broker refused a task: {message.data.decode()}"
        self._accepted += 1
        self._check_done()

    async def _on_result(self, message: Msg) -> None:
        number = int(message.subject[8:])
        if message.data != payload(number):
            self._wrong = f"a wrong result on {message.subject}"
        self._ended += 1
        if self._sent_at:
            self._latencies_s.append(time.perf_counter() - self._sent_at[number])
            self._check_done()
        elif self._sent < self._tasks:
            await self._fill()
        else:
            self._check_done()

    def _check_done(self) -> None:
        if (self._ended == self._accepted == self._tasks or self._wrong) and not self._done.done():
            self._done.set_result(None)

    async def _api(self, endpoint: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else b""
        answer = json.loads((await self._client.request(f"$JS.API.{endpoint}", data, timeout=10)).data)
        if "error" in answer:
            raise BenchFailed(f"raw: {endpoint}: {answer['error'].get('description')}")
        return answer

    async def _remove(self) -> None:
        for stream in (WORK, RESULTS):
            try:
                await self._api(f"STREAM.DELETE.{stream}")
            except BenchFailed:
                pass  # it did not exist


def payload(number: int) -> bytes:
    """64 bytes that begin with the number of the task."""
    return str(number).encode().ljust(PAYLOAD_BYTES, b".")


async def _work(urls: list[str]) -> None:
    await Worker(await connect(urls)).run()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_work(sys.argv[1:]))
