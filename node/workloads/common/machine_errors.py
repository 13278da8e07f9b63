"""Recognizes failures of the machine that a library reports in its own types, like a fault of the input."""

from __future__ import annotations

import errno
import os

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)


def machine_error(error: BaseException) -> MemoryError | OSError | None:
    """The same failure as a MemoryError, or as an OSError of the disk, according to its message; None: it is neither.

    Such a failure may not repeat, on this machine or another one: it must not become an InputFault.
    """
    text = str(error).casefold()
    if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
        return MemoryError(str(error))
    for number in _DISK:
        if os.strerror(number).casefold() in text:
            return OSError(number, os.strerror(number))
    return None
