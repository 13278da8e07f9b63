"""Writing files so that neither a crash nor a power cut leaves half of one, and no file is replaced unasked."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from mesh.errors import BadInput

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
#: Names of the files that are open in this process.
_OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


def check_output(target: Path, force: bool = False, inputs: Iterable[Path] = (), stream: bool = True) -> None:
    """Check that `target` may be written, before the work for it begins.

    `force`: an existing file may be replaced, but never one of `inputs`, under whatever name or link. `stream`: the
    bytes are written in order, so that `target` may be a pipe or a device.
    Raises: BadInput.
    """
    with named(target):
        place = target.resolve()  # a link is followed: what it points to is written
        if not place.parent.is_dir():
            missing = target.parent if not target.parent.is_dir() else place.parent
            raise BadInput(f"can't write {target}: there is no folder {missing}")
        if place.is_dir():
            raise BadInput(f"can't write {target}: it is a folder; name a file in it")
        for path in inputs:
            with suppress(FileNotFoundError):
                if place.samefile(path):
                    raise BadInput(f"can't write {target}: it is the input {path}")
        if is_special(target):
            if not stream:
                raise BadInput(f"can't write {target}: it is no regular file")
        elif place.exists():
            if not force:
                raise _there_already(target)
        elif not os.access(place.parent, os.W_OK):
            raise BadInput(f"can't write {target}: the folder {place.parent} is not writable")


def is_special(target: Path) -> bool:
    """Whether `target` is a pipe or a device, which is written and not replaced. Raises: OSError."""
    if str(target).startswith(_OPEN_FILES):
        return True  # may lead to a regular file that the shell has opened
    try:
        return not stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def draft_of(target: Path, force: bool = False) -> Generator[Path, None, None]:
    """A file beside `target` to write in the block; then it becomes `target`: as a whole, or not at all.

    A link is followed. A pipe or a device is given itself. `force`: replace an existing file, and keep its mode.
    Raises: BadInput when `target` has come to exist meanwhile; OSError, with the name of `target`.
    """
    with named(target):
        if is_special(target):
            yield target
            return
        place = target.resolve()
        draft = place.with_name(f".{place.name[:200]}.{os.getpid()}.part")
        try:
            yield draft
            if force:
                with suppress(FileNotFoundError):
                    shutil.copymode(place, draft)
                draft.replace(place)
            else:
                _publish(draft, place, target)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def _publish(draft: Path, place: Path, target: Path) -> None:
    """Rename, unless there is a file of that name. Raises: BadInput, OSError."""
    try:
        os.link(draft, place)
    except FileExistsError:
        raise _there_already(target) from None
    except OSError:  # a file system without hard links
        if place.exists():
            raise _there_already(target) from None
        draft.replace(place)


def _there_already(target: Path) -> BadInput:
    return BadInput(f"can't write {target}: it exists already; --force replaces it")


@contextmanager
def named(target: Path) -> Generator[None, None, None]:
    """Give the OSError of a disk that takes no more the name of the file that is written, which it lacks."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from error


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the content of `path` with `data`, flushed to disk: afterwards the file holds all of it or is unchanged.

    Raises: OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # otherwise a power cut may undo the rename
    finally:
        os.close(directory)
