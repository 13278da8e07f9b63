"""The parameters in the query of a request: every fault is found before the request is refused."""

from __future__ import annotations

import math
from collections.abc import Collection

from aiohttp import web

from api.documents.errors import excerpt
from api.http.ids import whole_number
from mesh.errors import Fault, bad_input
from mesh.spelling import nearest

#: So many unknown parameters are named.
MAX_UNKNOWN = 20


class Queries:
    """The query of one request. `known`: the names of its parameters; others are faults, for they would be ignored."""

    def __init__(self, request: web.Request, known: Collection[str]) -> None:
        self._query = request.query
        unknown = [name for name in dict.fromkeys(self._query) if name not in known]
        self._faults = [
            Fault(excerpt(name), f"is not a parameter here; the nearest is {nearest(name, sorted(known))}")
            for name in unknown[:MAX_UNKNOWN]
        ]
        self._faults += [
            Fault(name, "is given more than once") for name in known if len(self._query.getall(name, ())) > 1
        ]

    def text(self, name: str) -> str:
        """A parameter as it stands; "" when it is not given."""
        return self._query.get(name, "")

    def number(self, name: str) -> float:
        """A number of seconds from 0; 0 when it is not given."""
        try:
            value = float(self._query.get(name, "0"))
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= 0:
            return value
        self._faults.append(Fault(name, "must be a number of seconds from 0"))
        return 0.0

    def whole(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`."""
        value = whole_number(self._query.get(name, str(default)))
        if value is not None and 1 <= value <= most:
            return value
        self._faults.append(Fault(name, f"must be a whole number from 1 to {most}"))
        return default

    def check(self) -> None:
        """Raises: BadInput with every fault."""
        if self._faults:
            raise bad_input("The query is not valid", self._faults)
