"""Landlock: the folders in which a worker may write, on a Linux that has it.

A workload that is made to do what it should not can then neither change the files of the node beside which it runs (its
identity, the store of the bus) nor those of the user. Reading stays possible. A kernel without Landlock restricts
nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE = 1 << 1
#: Remove and make entries of each type, in the first version; then: move between folders, truncate.
_CHANGE_V1 = sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
#: What can be allowed for a file; the others are for folders.
_OF_FILES = _WRITE_FILE | _TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def write_only_in(folders: Iterable[Path]) -> bool:
    """Let this process, and what it starts, write below `folders` only; returns whether the kernel enforces it.

    Needs `no_new_privs`. Folders that are not there are left out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 2:
        return False  # the first version can't allow a file to be moved from one folder to another
    handled = _WRITE_FILE | _CHANGE_V1 | _REFER | (_TRUNCATE if version >= 3 else 0)
    rules = _Ruleset(handled)
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if ruleset < 0:
        return False
    try:
        for folder in folders:
            try:
                fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            allowed = handled if folder.is_dir() else handled & _OF_FILES
            rule = _PathBeneath(allowed, fd)
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            os.close(fd)
        return libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)
