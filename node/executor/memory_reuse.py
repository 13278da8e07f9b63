"""Freed memory stays with its worker for the next job, and goes back to the system once the worker is idle.

By default glibc unmaps each large buffer when it is freed, and the kernel clears every page of the next one: 40 % of
the time in which OpenCV shrinks a photograph of twelve megapixels. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

MIB = 1024 * 1024
#: A photograph of 50 megapixels fits. Larger buffers are unmapped when they are freed: between others, they would be
#: memory that no job can use.
LARGEST_KEPT_BYTES = 160 * MIB
#: More free memory than this at the end of the heap goes back at once.
MOST_KEPT_BYTES = 256 * MIB
#: A worker that got no job for this long gives its free memory back, milliseconds.
IDLE_MS = 500
#: A job shorter than this leaves too little memory behind to spend a system call on, seconds.
BRIEF_S = 0.002

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed() -> Callable[[], None]:
    """Keep freed memory in this process from now on; returns the function that gives it back. Both need glibc."""
    libc = ctypes.CDLL(None)
    try:
        set_option, trim = libc.mallopt, libc.malloc_trim
    except AttributeError:
        return _nothing
    set_option(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    set_option(_M_TRIM_THRESHOLD, MOST_KEPT_BYTES)
    trim.argtypes = (ctypes.c_size_t,)
    return lambda: trim(0)


def _nothing() -> None:
    pass
