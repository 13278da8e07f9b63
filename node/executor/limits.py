"""The limits of a worker process: environment, rights, files, memory, and its end when its daemon dies.

Memory is limited twice. The daemon watches the resident memory of a worker and of every process it started, and kills
the worker when that grows by more than the job's `memory_mb`: this counts memory in real use, on every system. On Linux
pages of mapped files don't count, because the kernel can reclaim them at any time. Between two checks the kernel's
RLIMIT_DATA is the backstop: it counts private writable memory only, while RLIMIT_AS would also count memory that numpy,
torch or CUDA only reserve, and would stop them without need.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from node.executor import landlock

MIB = 1024 * 1024
#: Allowance on top of the job's own limit, for thread stacks and the caches of libraries.
DATA_SLACK_BYTES = 512 * MIB
#: Set by the daemon when the worker has started.
NICENESS = 5
OPEN_FILES = 4096
#: The largest file that a worker may write: this share of the free disk, which the store of the bus may share, within
#: these bounds, bytes.
FILE_SHARE = 0.5
SMALLEST_FILE_BYTES, LARGEST_FILE_BYTES = 64 * MIB, 64 * 1024 * MIB
LINUX = sys.platform.startswith("linux")

# fmt: off
#: The variables that a worker inherits from its daemon; nothing else, so no key and no credential.
ALLOWED = frozenset(
    (
        "PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV",
        "PYTHONHASHSEED", "PYTHONMALLOC", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE",
        "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT",
        "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
        "SSL_CERT_FILE", "SSL_CERT_DIR",
    )
)
# fmt: on

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def clean_environment(environment: Mapping[str, str], folder: Path, code: Path) -> dict[str, str]:
    """The environment of a worker whose task folder is `folder`; `code` is the directory that holds `node`."""
    kept = {name: value for name, value in environment.items() if name in ALLOWED or name.startswith("LC_")}
    # On a busy machine OpenMP threads that spin while they wait cost more than they gain: two threads of llama.cpp made
    # 2 tokens/s when spinning and 20 to 43 when sleeping.
    kept.setdefault("OMP_WAIT_POLICY", "passive")
    # A few microseconds of spinning pay off on a quiet machine, where the next step comes within that time: llama.cpp
    # is 2.5 times as fast.
    kept.setdefault("GOMP_SPINCOUNT", "1000")
    return kept | {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(code), "PYTHONUTF8": "1"}


def confine(parent: int, folder: Path) -> None:
    """Called by a worker once, before it takes jobs. Ends the process if its daemon, `parent`, is gone already.

    `folder`: where the worker, those beside it and their results have their files.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _hard_limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _hard_limit(resource.RLIMIT_FSIZE, largest_file_bytes(shutil.disk_usage(folder).free))
    for number in (signal.SIGINT, signal.SIGTERM):
        # A handler, because the programs that a workload starts would inherit SIG_IGN.
        signal.signal(number, _ignore_signal)
    if LINUX:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # Processes that a workload leaves behind become children of this process, which can find and end them.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # No program that it starts gets more rights than it has, by setuid or file capabilities.
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Besides its own files: devices, and the compiled modules of libraries, which are made on first use.
        landlock.write_only_in((folder, Path("/dev"), Path("/proc/self"), Path(sys.prefix)))
    if os.getppid() != parent:
        os._exit(0)


def _ignore_signal(number: int, stack: object) -> None:
    """Ctrl-C and the SIGTERM of a service manager reach every process; the daemon decides when each worker ends."""


def largest_file_bytes(free_bytes: int) -> int:
    """The largest file that a worker may write on a disk with `free_bytes` of free space."""
    return min(LARGEST_FILE_BYTES, max(SMALLEST_FILE_BYTES, int(free_bytes * FILE_SHARE)))


def file_limit_mib() -> int:
    """The largest file that this process may write, MiB."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] // MIB


def _hard_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _soft_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def limit_data(memory_mb: int) -> int:
    """Called by a worker before a job: set the backstop (0: no limit).

    The worker's resident memory now, bytes, counted as in `resident_bytes`.
    """
    if not LINUX:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm", "rb") as file:
        fields = file.read().split()
    page = resource.getpagesize()
    if memory_mb:
        _soft_limit(resource.RLIMIT_DATA, int(fields[5]) * page + memory_mb * MIB + DATA_SLACK_BYTES)
    else:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    return _own_bytes("self")


def _own_bytes(process: int | str) -> int:
    """Resident memory without pages of files: private and shared memory. Raises: OSError when the process is gone."""
    with open(f"/proc/{process}/status", "rb") as file:
        counts = dict(line.split(b":", 1) for line in file if line.startswith((b"RssAnon", b"RssShmem")))
    return sum(int(count.split()[0]) for count in counts.values()) * 1024


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, on Linux without pages of files; 0 when it is gone."""
    if not LINUX:
        import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            return sum(member.memory_info().rss for member in family)
        except psutil.Error:
            return 0
    try:
        total = _own_bytes(pid)
    except (OSError, IndexError, ValueError):
        return 0
    return total + sum(resident_bytes(child) for child in children_of(pid))


def children_of(pid: int) -> list[int]:
    """The direct children of `pid`; empty where the system does not list them."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # the process, or that thread, has just ended
    return found


def has_children() -> bool:
    """Whether this process has children, ended ones included: one system call, cheap enough after every job."""
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        else:
            os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def end_children() -> None:
    """Kill and reap all processes that jobs have left behind, grandchildren included."""
    while has_children():
        children = children_of(os.getpid())
        if not children:
            import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

            children = [child.pid for child in psutil.Process().children(recursive=True)]
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
