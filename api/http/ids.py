"""Ids as they come in a path: what has not the shape of one is an id that never was.

They become subjects of the bus, so nothing that is not an id may pass: no dot, no wildcard, no space.
"""

from __future__ import annotations

import re

from aiohttp import web

from mesh.errors import NotFound

_TASK = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9]{1,19}|[0-9]{1,19}", re.ASCII)
_BLOB = re.compile(r"b-[A-Za-z0-9_-]{1,64}", re.ASCII)


def task_id(request: web.Request) -> str:
    """The task id in the path; a bare number is a sequence of the NATS door. Raises: NotFound."""
    text = request.match_info["id"]
    if not _TASK.fullmatch(text):
        raise NotFound(f"{_shown(text)} is no task id; submitting a workload answers with one.")
    return text


def is_alias(task: str) -> bool:
    """Whether `task` is a sequence of the door rather than a task id."""
    return "-" not in task


def blob_id(request: web.Request) -> str:
    """The blob id in the path. Raises: NotFound."""
    text = request.match_info["id"]
    if not _BLOB.fullmatch(text):
        raise NotFound(f"{_shown(text)} is no blob id; POST /api/v1.2/blobs answers with one.")
    return text


def _shown(text: str) -> str:
    return repr("".join(letter if letter.isprintable() else "?" for letter in text[:80]))
