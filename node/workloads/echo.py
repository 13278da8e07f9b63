"""echo: give a value back; on a node with `--fault-kinds` also fail, crash, leak or hang on order."""

from __future__ import annotations

import os
import signal
import time
from hashlib import sha256, shake_128
from typing import Any

from mesh.kinds.echo import EchoPayload
from node.executor.context import Context, InputFault, Output

_MIB = 1024 * 1024
#: How long leaked memory is held.
LEAK_S = 3.0


def run(payload: EchoPayload, context: Context) -> dict[str, Any] | Output:
    """{"value": …} plus {"data_bytes", "data_sha256"} when data came; bytes when `size_bytes` asks for them.

    Raises: InputFault for a fault field on a node without `--fault-kinds`; RuntimeError when told to fail.
    """
    data = None if payload.data is None else context.read(payload.data)
    if payload.sleep_s:
        _sleep(payload.sleep_s, context)
    if payload.spin_ms:
        _spin(payload.spin_ms / 1000)
    if payload.fail or payload.crash or payload.leak_mb or payload.hang:
        _break(payload, context)
    if payload.size_bytes:
        made = filler(payload.seed, payload.size_bytes)
        return Output(made, info={"value": payload.value, "seed": payload.seed})
    result: dict[str, Any] = {"value": payload.value}
    if data is not None:
        result |= {"data_bytes": len(data), "data_sha256": sha256(data).hexdigest()}
    return result


def filler(seed: int, size_bytes: int) -> bytes:
    """`size_bytes` bytes that anybody who knows the seed can make again: 1 MiB of SHAKE-128, repeated."""
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
    """Use this much CPU, however long that takes on a busy machine."""
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        pass


def _break(payload: EchoPayload, context: Context) -> None:
    if not context.fault_kinds:
        fields = (name for name in ("fail", "crash", "leak_mb", "hang") if getattr(payload, name))
        raise InputFault(next(fields), "is refused: this node was not started with --fault-kinds")
    if payload.leak_mb:
        kept = [bytearray(os.urandom(4096) * 256) for _ in range(payload.leak_mb)]
        # A leak stays: else a daemon that is held up for a moment would not see it.
        time.sleep(LEAK_S)
        kept.clear()
    if payload.crash == "exit":
        os._exit(70)
    elif payload.crash:
        # SEGV may be caught by a handler that prints; the default action is what a real fault does.
        number = signal.SIGSEGV if payload.crash == "segv" else signal.SIGKILL
        if number == signal.SIGSEGV:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    while payload.hang:
        signal.pause()
    if payload.fail:
        raise RuntimeError(payload.fail)
