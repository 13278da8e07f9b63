"""Where nodes are to be: in the one region that residency allows, and near where the work comes from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.scheduling.geo import Point, km

#: How far regions are taken to lie apart where no coordinates are known: the same name, the same first part, neither.
SAME_KM, KIN_KM, FAR_KM = 0.0, 1500.0, 8000.0

Places = Mapping[str, Point]


def may_stay(residency: str, region: str) -> bool:
    """Whether work that must stay in `residency` may run in `region`: "eu" allows "eu" and "eu-west-1"."""
    return not residency or region == residency or region.startswith(residency + "-")


def distance_km(one: str, other: str, places: Places) -> float:
    """By coordinates where both are known, else by the names: eu-west-1 is nearer to eu-north-1 than to us-east-1."""
    if one == other:
        return SAME_KM
    if one in places and other in places:
        return km(places[one], places[other])
    return KIN_KM if one and one.split("-")[0] == other.split("-")[0] else FAR_KM


def most_wanting(demand: Mapping[str, float], there: Iterable[str]) -> str:
    """The region of origin that is furthest below its share of the nodes, `there` being the regions of those there are.

    "" where nothing is known of origins. Ties go to the first by name.
    """
    whole = sum(share for share in demand.values() if share > 0)
    if not whole:
        return ""
    regions = list(there)
    total = len(regions) + 1
    return max(sorted(demand), key=lambda region: demand[region] / whole * total - regions.count(region))
