"""Whether a bus server whose process lives also stores: the decision beside `health_monitor.py`. Pure.

nats-server keeps a write error until it restarts, and may switch JetStream off when its disk is full. Neither ends the
process, so a supervisor of processes sees nothing. Here the disk, the server's own answers and its log are judged: the
server is fine, needs attention, refuses, or must be restarted, but only when its disk takes writes again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

MB = 1_000_000
#: Below this much free space nothing new is accepted: the rest is for the ends of the tasks that run, and the logs.
RESERVE_BYTES = 32 * MB
#: A full disk has room again above this.
ROOM_BYTES = 64 * MB
#: Less free space than this raises an alarm.
LOW_BYTES = 256 * MB
#: A server that did not answer this many checks in a row counts as hung.
HUNG_AFTER_LOOKS = 8
#: A fault in the server's own health check that goes away sooner than this is an election or a catch-up, seconds.
FAULT_S = 10.0
#: The first restart comes at once, the next ones after these pauses, seconds. The last one repeats.
BACK_OFF_S = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
#: After this long without a reason to restart, the next restart comes at once again, seconds.
FORGET_S = 600.0

DiskFault = Literal["", "full", "read-only", "denied", "failing", "hangs", "gone"]
_SAYS: dict[DiskFault, str] = {
    "full": "is full ({free} MB free): free space on it; the bus then continues by itself",
    "read-only": "is mounted read-only: check it and mount it for writing; the bus then continues by itself",
    "denied": "can't be written (permission denied): give the user of the node access to its data folder",
    "failing": "fails to write: check it; the bus continues by itself when writes succeed",
    "hangs": "does not finish a write: check it; the bus continues by itself when writes succeed",
    "gone": "has no data folder any more: restore it, or stop the node and start it with another --data",
}


@dataclass(frozen=True)
class Disk:
    """The file system of the store, as a write into the folder found it."""

    free_bytes: int
    fault: DiskFault = ""
    """Why a small write failed; "" when it succeeded."""


@dataclass(frozen=True)
class Seen:
    """One look at a server whose process lives."""

    disk: Disk
    answers: bool = True
    """Whether the server answered the question for its health."""
    enabled: bool = True
    """Whether it says that JetStream is on."""
    fault: str = ""
    """What its own health check complains about that a restart can heal: a write error, a part that ended."""
    write_errors: int = 0
    """How many write errors its log shows since its start."""


@dataclass(frozen=True)
class Memory:
    """What earlier looks found."""

    is_full: bool = False
    tainted: bool = False
    """Whether writes failed since the last restart: the server may keep an error that is over."""
    silent_looks: int = 0
    fault_since: float | None = None
    restarts: int = 0
    restarted_at: float = float("-inf")


@dataclass(frozen=True)
class Verdict:
    """What follows from a look."""

    stores: bool = True
    """Whether the server can store something new."""
    is_full: bool = False
    """Whether it can't because its disk is full."""
    says: str = ""
    """The state for people, without the name of the machine: "the disk … is full"; "" when nothing is wrong."""
    restart: str = ""
    """Why it must be restarted now; "" when it need not."""
    serves_nothing: bool = False
    """Whether JetStream is off or silent: then a restart takes nothing away from the other servers."""


def judge(seen: Seen, memory: Memory, now: float) -> tuple[Verdict, Memory]:
    """What to do about a server, `now` in monotonic seconds."""
    disk = seen.disk
    # What is free is not known where a look failed.
    little = not disk.fault and disk.free_bytes < (ROOM_BYTES if memory.is_full else RESERVE_BYTES)
    is_full = disk.fault == "full" or little
    disk_fault: DiskFault = disk.fault or ("full" if is_full else "")
    silent_looks = 0 if seen.answers else memory.silent_looks + 1
    fault_since = None if not seen.fault else now if memory.fault_since is None else memory.fault_since
    tainted = memory.tainted or bool(disk.fault) or seen.write_errors > 0
    memory = replace(memory, is_full=is_full, tainted=tainted, silent_looks=silent_looks, fault_since=fault_since)
    if disk_fault:
        says = f"the disk {_SAYS[disk_fault].format(free=disk.free_bytes // MB)}"
        return Verdict(False, is_full, says), memory
    reason, serves_nothing = _broken(seen, memory, now)
    if not reason:
        if now - memory.restarted_at > FORGET_S:
            memory = replace(memory, restarts=0)
        low = disk.free_bytes < LOW_BYTES
        says = f"the disk is nearly full ({disk.free_bytes // MB} MB free): free space on it" if low else ""
        return Verdict(says=says), memory
    pause_s = BACK_OFF_S[min(memory.restarts, len(BACK_OFF_S) - 1)]
    due = now - memory.restarted_at >= pause_s
    says = f"{reason}; the bus server is restarted"
    return Verdict(False, says=says, restart=reason if due else "", serves_nothing=serves_nothing), memory


def restarted(memory: Memory, now: float) -> Memory:
    """The memory after a restart at `now`."""
    return Memory(restarts=memory.restarts + 1, restarted_at=now)


def _broken(seen: Seen, memory: Memory, now: float) -> tuple[str, bool]:
    """(why the server does not store although its disk takes writes, whether it serves nothing at all); ("", False)."""
    if memory.silent_looks >= HUNG_AFTER_LOOKS:
        return "its process lives and does not answer", True
    if seen.answers and not seen.enabled:
        return "it has switched JetStream off", True
    if memory.tainted:
        return "a write has failed, and it refuses the next ones too", False
    if memory.fault_since is not None and now - memory.fault_since >= FAULT_S:
        return f"its health check reports: {seen.fault}", False
    return "", False
