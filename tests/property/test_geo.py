"""Points on the earth, and the region of an origin."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import LOCAL
from mesh.errors import BadInput
from mesh.scheduling.geo import great_circle_km, places, point, region_at
from mesh.tasks.validation import prepare
from mesh.views import SubmitRequest
from tests.integration.scaling_harness import member

POINTS = st.tuples(st.floats(-90, 90), st.floats(-180, 180)).map(lambda pair: (round(pair[0], 6), round(pair[1], 6)))
FRANKFURT, NEW_YORK, TOKYO = (50.1, 8.7), (40.7, -74.0), (35.7, 139.7)
WORLD = {"eu": FRANKFURT, "us": NEW_YORK, "jp": TOKYO}


@given(POINTS)
def test_a_point_is_parsed_as_it_is_written(here) -> None:
    assert point(f"{here[0]:f},{here[1]:f}") == pytest.approx(here)


NO_POINTS = ["eu", "", "1", "91,0", "0,181", "1,2,3", "a,b", "1, 2", "nan,0", "1e1,0", "+1,2", "٣,٤"]


@pytest.mark.parametrize("text", NO_POINTS)
def test_text_that_is_no_point(text) -> None:
    assert point(text) is None


@given(POINTS, POINTS, POINTS)
def test_distances_are_those_of_a_sphere(here, other, third) -> None:
    assert great_circle_km(here, here) == pytest.approx(0, abs=1e-3) and great_circle_km(here, other) == pytest.approx(
        great_circle_km(other, here)
    )
    assert great_circle_km(here, other) <= great_circle_km(here, third) + great_circle_km(third, other) + 1e-3
    assert great_circle_km(here, other) <= 20016


def test_a_known_distance() -> None:
    assert great_circle_km(FRANKFURT, NEW_YORK) == pytest.approx(6200, rel=0.01)


@given(POINTS)
def test_an_origin_means_the_nearest_region(here) -> None:
    found = region_at(f"{here[0]:f},{here[1]:f}", WORLD)
    assert all(great_circle_km(here, WORLD[found]) <= great_circle_km(here, at) + 1e-6 for at in WORLD.values())


def test_a_region_means_itself_and_a_point_nothing_without_located_nodes() -> None:
    assert region_at("mars", WORLD) == "mars" and region_at("", WORLD) == "" and region_at("50,8", {}) == ""


def test_the_first_node_of_a_region_locates_it() -> None:
    def node(name: str, region: str, at: str):
        made = member(name)
        record = msgspec.structs.replace(made.record, region=region, labels={"at": at} if at else {})
        return type(made)(record, made.state, made.heartbeat)

    nodes = [node("n2", "eu", "1,1"), node("n1", "eu", "50.1,8.7"), node("n3", "us", ""), node("n4", "", "2,2")]
    assert places([*nodes, node("n0", "us", "here")]) == {"eu": FRANKFURT}


def test_work_from_a_point_goes_into_the_lane_of_the_region_it_is_near() -> None:
    def lane(origin: str, world=WORLD):
        return prepare(SubmitRequest("echo", origin=origin), "c1-1", 1.0, LOCAL, ("eu", "jp", "us"), world).lane

    assert lane("48.9,2.3")[1] == "any@eu" and lane("-33.9,151.2")[1] == "any@jp"
    assert lane("48.9,2.3", {})[1] == "any" == lane("mars")[1]
    for wrong in ("91,0", "a b"):
        with pytest.raises(BadInput, match="LATITUDE,LONGITUDE"):
            lane(wrong)
