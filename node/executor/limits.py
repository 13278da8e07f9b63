"""What holds a worker process in: environment, rlimits, niceness, memory, and an end with its daemon.

Memory is limited twice. The daemon watches what a worker (and every process it started) has resident over
what it had before the job, and kills it past the job's `memory_mb`: that counts what is really used, on any
system. On Linux pages of mapped files don't count, for the kernel takes them back when it needs them. Between two
looks the kernel's RLIMIT_DATA is the backstop: it counts private writable memory only, where RLIMIT_AS would also
count what numpy, torch or CUDA merely reserve, and would stop them for nothing.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

MIB = 1024 * 1024
#: Over the job's own limit: thread stacks and what a library keeps for itself.
DATA_SLACK_BYTES = 512 * MIB
NICENESS = 5
OPEN_FILES = 4096
LINUX = sys.platform.startswith("linux")

# fmt: off
#: What a worker inherits of its daemon's environment; nothing else, so no key and no credential.
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


def clean_environment(environment: Mapping[str, str], folder: Path, code: Path) -> dict[str, str]:
    """The environment of a worker whose task folder is `folder`; `code` is the directory that holds `node`."""
    kept = {name: value for name, value in environment.items() if name in ALLOWED or name.startswith("LC_")}
    # On a busy machine threads of OpenMP that spin while they wait cost more than they do: llama.cpp's two threads made
    # 2 tokens/s spinning and 20 to 43 sleeping.
    kept.setdefault("OMP_WAIT_POLICY", "passive")
    # But a few microseconds of it: on a quiet machine the next step is there by then: llama.cpp is 2.5 times as fast.
    kept.setdefault("GOMP_SPINCOUNT", "1000")
    return kept | {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(code), "PYTHONUTF8": "1"}


def confine(parent: int) -> None:
    """For a worker, once, before it takes work. Ends the process when its daemon, `parent`, has gone already."""
    os.nice(NICENESS)
    if LINUX:
        _be_nice_as_a_session()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft_limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A handler, not SIG_IGN: programs that a workload starts would inherit that.
        signal.signal(number, _leave_it_to_the_daemon)
    if LINUX:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # Whatever a workload starts and leaves behind becomes this process's own child, and so can be found.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _be_nice_as_a_session() -> None:
    """Each worker leads a session, and Linux' autogroup scheduler shares the machine between sessions first: there
    the niceness of a process counts only within its own, and a daemon would get no more than one worker of many."""
    try:
        Path("/proc/self/autogroup").write_text(str(NICENESS))
    except OSError:
        return  # a kernel without it: then niceness counts everywhere


def _leave_it_to_the_daemon(number: int, stack: object) -> None:
    """Ctrl-C and a service manager's SIGTERM reach every process; the daemon alone decides what ends when."""


def _soft_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def limit_data(memory_mb: int) -> int:
    """For a worker, before a job: sets the backstop; 0 means no limit. The bytes it has resident now, as
    `resident_bytes` counts them."""
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
    """Resident and no page of a file: memory of its own, and shared memory. Raises: OSError when it is gone."""
    with open(f"/proc/{process}/status", "rb") as file:
        counts = dict(line.split(b":", 1) for line in file if line.startswith((b"RssAnon", b"RssShmem")))
    return sum(int(count.split()[0]) for count in counts.values()) * 1024


def resident_bytes(pid: int) -> int:
    """What a process and all it started have resident (on Linux without pages of files); 0 when it is gone."""
    if not LINUX:
        import psutil

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
    """The processes that `pid` started, direct ones only; none where the system does not tell."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # the process, or that thread, ended while we looked
    return found


def has_children() -> bool:
    """Whether this process has children, ended ones included: one system call, for use after every job."""
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        else:
            os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def end_children() -> None:
    """Kills and reaps everything this process has started and its jobs left behind, grandchildren too."""
    while has_children():
        children = children_of(os.getpid())
        if not children:
            import psutil

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
