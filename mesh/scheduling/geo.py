"""Geographic positions: the origin of work that is given by coordinates, and the nearest region. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh.membership.member import Member

#: (latitude, longitude) in degrees, north and east positive
Point = tuple[float, float]

EARTH_KM = 6371.0
#: The label with the position of a node (`--at 50.1,8.7`).
AT_LABEL = "at"
_POINT = re.compile(r"(-?\d{1,2}(?:\.\d{1,9})?),(-?\d{1,3}(?:\.\d{1,9})?)", re.ASCII)


def point(text: str) -> Point | None:
    """The point of "LATITUDE,LONGITUDE"; None when the text has another form or is out of range."""
    found = _POINT.fullmatch(text)
    if found is None:
        return None
    north, east = float(found[1]), float(found[2])
    return (north, east) if abs(north) <= 90 and abs(east) <= 180 else None


def great_circle_km(start: Point, end: Point) -> float:
    """The great-circle distance between two points."""
    (north, east), (north2, east2) = start, end
    haversine = sin(radians(north2 - north) / 2) ** 2
    haversine += cos(radians(north)) * cos(radians(north2)) * sin(radians(east2 - east) / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(haversine)))


def region_at(origin: str, places: Mapping[str, Point]) -> str:
    """The region of an origin: the origin itself, or, when it is a point, the nearest region of `places`; "" for none.

    Of equally near regions the first by name.
    """
    here = point(origin) if origin else None  # called for every task, and most have no origin
    if here is None:
        return origin
    return min(sorted(places), key=lambda region: great_circle_km(here, places[region]), default="")


def places(members: Iterable[Member]) -> dict[str, Point]:
    """Region -> its position: that of its first node, by id, that states one. Other regions are absent."""
    found: dict[str, Point] = {}
    for member in sorted(members, key=lambda member: member.record.id):
        position = point(member.record.labels.get(AT_LABEL, ""))
        if position is not None and member.record.region:
            found.setdefault(member.record.region, position)
    return found
