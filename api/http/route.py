"""A row of the route table: a path, its handler, and what the OpenAPI document says about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from mesh.node_api import API_PREFIX

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Answer:
    """An answer of a route: a document of type `model`, or bytes of type `media`."""

    what: str
    model: type | None = None
    """A document of api.documents."""
    media: str = "application/json"
    """"" for an answer without a body."""


@dataclass(frozen=True)
class Query:
    """A parameter in the query, or a header of the request."""

    name: str
    what: str
    schema: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Route:
    """A method and a path below API_PREFIX (or "/"), its handler and its description."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, Answer]
    errors: tuple[int, ...] = ()
    """Statuses that it may answer with the error document; every route may answer 403, 421 and 500."""
    query: tuple[Query, ...] = ()
    headers: tuple[Query, ...] = ()
    body: type | None = None
    """A document or a pydantic model."""
    takes_bytes: bool = False
    open: bool = False
    """Whether it answers other machines even when the mesh has no key."""
    tags: tuple[str, ...] = field(default=("workload",))

    @property
    def full_path(self) -> str:
        """The path as clients write it."""
        return self.path if self.path == "/" else API_PREFIX + self.path
