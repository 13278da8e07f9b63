"""The one error document: {"error": {"code", "message", "faults": [{"field", "problem"}]}}. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, UnsetType

from api.documents.base import Document
from mesh.errors import Fault
from mesh.messages import TaskError


class ErrorBody(Document, frozen=True):
    """What went wrong."""

    code: str
    """for programs"""
    message: str
    """one sentence for people"""
    faults: tuple[Fault, ...]
    """each wrong field of the request"""


class ErrorDoc(Document, frozen=True):
    """Every answer with a status of 400 and above."""

    error: ErrorBody
    id: str | UnsetType = UNSET
    """the task's id; with status 500 the id of the request in the node's log"""
    state: str | UnsetType = UNSET
    """the task's state, when the error is about a task"""


def error_body(code: str, message: str, faults: Iterable[Fault] = ()) -> ErrorBody:
    """The body of an error, its message as a sentence."""
    return ErrorBody(code, sentence(message), tuple(faults))


def task_error(error: TaskError) -> ErrorBody:
    """The body of the error in a task's record."""
    return ErrorBody(error.code, error.message, tuple(Fault(field, problem) for field, problem in error.faults))


def excerpt(text: object, limit: int = 80) -> str:
    """The first `limit` characters of text from a client, fit to be shown: unprintable characters become "?"."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:limit])


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text.strip() or "Something went wrong"
    first = text if text[:1].isupper() or not text[:1].isalpha() else text[0].upper() + text[1:]
    return first if first[-1] in ".!?" else first + "."
