"""Ids in paths: text that is not well formed as an id is answered like an unknown id.

Ids become subjects of the bus, so nothing else may pass: no dot, no wildcard, no space.
"""

from __future__ import annotations

import re

from aiohttp import web

from api.documents.errors import excerpt
from mesh.errors import NotFound
from mesh.node_api import API_PREFIX

_TASK = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9]{1,19}|[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_BLOB = re.compile(r"b-[A-Za-z0-9_-]{1,64}", re.ASCII)


def task_id(request: web.Request) -> str:
    """The task id in the path; a bare number is the sequence of a message to the NATS ingress. Raises: NotFound."""
    text = request.match_info["id"]
    if not _TASK.fullmatch(text):
        raise NotFound(f"{excerpt(text)!r} is not a task id; submitting a workload returns one.")
    return text


def whole_number(text: str) -> int | None:
    """The number that 1 to 18 ASCII digits stand for; None for any other text."""
    return int(text) if _NUMBER.fullmatch(text) else None


def is_sequence(task: str) -> bool:
    """Whether `task` is the sequence of an ingress message rather than a task id."""
    return "-" not in task


def blob_id(request: web.Request) -> str:
    """The blob id in the path. Raises: NotFound."""
    text = request.match_info["id"]
    if not _BLOB.fullmatch(text):
        raise NotFound(f"{excerpt(text)!r} is not a blob id; POST {API_PREFIX}/blobs returns one.")
    return text
