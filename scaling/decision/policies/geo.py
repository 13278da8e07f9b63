"""Where nodes are started: in the region that residency allows, and near the origin of the work. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.scheduling.geo import Point, great_circle_km

#: Assumed distance of regions without coordinates: the same name, the same first part of the name, neither.
SAME_KM, KIN_KM, FAR_KM = 0.0, 1500.0, 8000.0

Places = Mapping[str, Point]


def allows_region(residency: str, region: str) -> bool:
    """Whether work that must stay in `residency` may run in `region`: "eu" allows "eu" and "eu-west-1"."""
    return not residency or region == residency or region.startswith(residency + "-")


def distance_km(first: str, second: str, places: Places) -> float:
    """By coordinates where both are known, else by the names: eu-west-1 is nearer to eu-north-1 than to us-east-1."""
    if first == second:
        return SAME_KM
    if first in places and second in places:
        return great_circle_km(places[first], places[second])
    return KIN_KM if first and first.split("-")[0] == second.split("-")[0] else FAR_KM


def most_underserved(demand: Mapping[str, float], node_regions: Iterable[str]) -> str:
    """The region of origin whose share of the nodes is furthest below its share of the demand.

    "" where the origins are unknown. Ties go to the first by name.
    """
    total_demand = sum(share for share in demand.values() if share > 0)
    if not total_demand:
        return ""
    regions = list(node_regions)
    count = len(regions) + 1
    return max(sorted(demand), key=lambda region: demand[region] / total_demand * count - regions.count(region))
