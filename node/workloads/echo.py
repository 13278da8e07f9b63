"""echo: returns a value; on a node with `--fault-kinds` it also fails, crashes, leaks or hangs on request."""

from __future__ import annotations

import os
import signal
import time
from hashlib import sha256, shake_128
from typing import Any

from mesh.kinds.echo import EchoPayload
from node.executor.context import Context, InputFault, Output

_MIB = 1024 * 1024
#: How long leaked memory is kept.
LEAK_S = 3.0


def run(payload: EchoPayload, context: Context) -> dict[str, Any] | Output:
    """{"value"}, with {"data_bytes", "data_sha256"} for a payload with data; with `size_bytes`, that many bytes.

    Raises: InputFault for a fault field on a node without `--fault-kinds`; RuntimeError for `fail`.
    """
    data = None if payload.data is None else context.read(payload.data)
    if payload.sleep_s:
        _sleep(payload.sleep_s, context)
    if payload.spin_ms:
        _spin(payload.spin_ms / 1000)
    if payload.fail or payload.crash or payload.leak_mb or payload.hang:
        _break(payload, context)
    if payload.size_bytes:
        filled = filler(payload.seed, payload.size_bytes)
        return Output(filled, info={"value": payload.value, "seed": payload.seed})
    result: dict[str, Any] = {"value": payload.value}
    if data is not None:
        result |= {"data_bytes": len(data), "data_sha256": sha256(data).hexdigest()}
    return result


def filler(seed: int, size_bytes: int) -> bytes:
    """`size_bytes` bytes that the seed reproduces: 1 MiB of SHAKE-128, repeated."""
    block = shake_128(seed.to_bytes(8, "big")).digest(min(size_bytes, _MIB))
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


def _sleep(total_s: float, context: Context) -> None:
    if total_s <= 2.0:
        time.sleep(total_s)
        return
    start = time.monotonic()
    step_s = max(0.5, total_s / 100)
    while (passed_s := time.monotonic() - start) < total_s:
        context.progress(passed_s / total_s, "sleeping")
        time.sleep(min(step_s, total_s - passed_s))


def _spin(cpu_s: float) -> None:
    """Use this much CPU time, however long that takes on a busy machine."""
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        pass


def _break(payload: EchoPayload, context: Context) -> None:
    if not context.fault_kinds:
        fields = (name for name in ("fail", "crash", "leak_mb", "hang") if getattr(payload, name))
        raise InputFault(next(fields), "is refused: this node was not started with --fault-kinds")
    if payload.leak_mb:
        kept = [bytearray(os.urandom(4096) * 256) for _ in range(payload.leak_mb)]
        # Keep the memory for a while, so that a daemon that is briefly delayed still notices.
        time.sleep(LEAK_S)
        kept.clear()
    if payload.crash == "exit":
        os._exit(70)
    elif payload.crash:
        # Restore the default action of SIGSEGV, since a handler that prints may be installed.
        number = signal.SIGSEGV if payload.crash == "segv" else signal.SIGKILL
        if number == signal.SIGSEGV:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    while payload.hang:
        signal.pause()
    if payload.fail:
        raise RuntimeError(payload.fail)
