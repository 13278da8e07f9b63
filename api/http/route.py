"""One row of the route table: what it answers, and what the OpenAPI document says about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from mesh.node_api import API_PREFIX

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Answer:
    """One way a route answers: with a document of `model`, or with bytes of `media`."""

    what: str
    model: type[BaseModel] | None = None
    media: str = "application/json"


@dataclass(frozen=True)
class Query:
    """One query parameter."""

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
    """Statuses it may answer with the error document; 403, 421 and 500 are implied for every route."""
    query: tuple[Query, ...] = ()
    body: type[BaseModel] | None = None
    takes_bytes: bool = False
    open: bool = False
    """Answered to other machines although the mesh has no key."""
    tags: tuple[str, ...] = field(default=("workload",))

    @property
    def full_path(self) -> str:
        """The path as clients write it."""
        return self.path if self.path == "/" else API_PREFIX + self.path
