"""Points on the earth: where work comes from when it says so by coordinates, and which region is nearest. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh.membership.member import Member

#: (latitude, longitude), degrees, north and east positive
Point = tuple[float, float]

EARTH_KM = 6371.0
#: The label by which a node's record says where it stands (`--at 50.1,8.7`).
AT_LABEL = "at"
_POINT = re.compile(r"(-?\d{1,2}(?:\.\d{1,9})?),(-?\d{1,3}(?:\.\d{1,9})?)", re.ASCII)


def point(text: str) -> Point | None:
    """The point that "LATITUDE,LONGITUDE" means; None when it means none."""
    found = _POINT.fullmatch(text)
    if found is None:
        return None
    north, east = float(found[1]), float(found[2])
    return (north, east) if abs(north) <= 90 and abs(east) <= 180 else None


def km(one: Point, other: Point) -> float:
    """How far apart they are, along a great circle."""
    (north, east), (north2, east2) = one, other
    wide = sin(radians(north2 - north) / 2) ** 2
    wide += cos(radians(north)) * cos(radians(north2)) * sin(radians(east2 - east) / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(wide)))


def region_at(origin: str, places: Mapping[str, Point]) -> str:
    """The region that an origin means: itself, or the nearest one of `places` when it is a point; "" for none.

    Of regions equally near the first by name.
    """
    here = point(origin) if origin else None  # for every task: most say nothing
    if here is None:
        return origin
    return min(sorted(places), key=lambda region: km(here, places[region]), default="")


def places(members: Iterable[Member]) -> dict[str, Point]:
    """Where the regions of these nodes are, as far as one of their nodes says so: the first of each, by id."""
    found: dict[str, Point] = {}
    for one in sorted(members, key=lambda member: member.record.id):
        at = point(one.record.labels.get(AT_LABEL, ""))
        if at is not None and one.record.region:
            found.setdefault(one.record.region, at)
    return found
