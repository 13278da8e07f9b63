"""The speed of offers, measured by the tasks of their nodes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kinds.base import Resources
from mesh.membership.member import Member
from scaling.observation.throughput import LEAST_TASKS, pool_speeds, update_speeds
from scaling.state.orders import Intent
from tests.integration.scaling_harness import member

RESOURCES = {"small": Resources(cores=1), "whole": Resources(cores="all"), "gpu": Resources(gpu=True)}


def node(token: str, slots: int, **rates: tuple[float, int]) -> Member:
    """A node of that launch token with measured rates of these kinds."""
    made = member(token, token)
    assert made.heartbeat is not None
    record = msgspec.structs.replace(made.record, slots=slots)
    return Member(record, "up", msgspec.structs.replace(made.heartbeat, rates=rates))


def intents(**offers: str) -> dict[str, Intent]:
    return {token: Intent(token=token, provider="p", offer=offer, pool="cpu") for token, offer in offers.items()}


def test_throughput_counts_slots_except_for_work_that_takes_the_whole_node() -> None:
    found = update_speeds({}, [node("a", 4, small=(2.0, 10), whole=(2.0, 10))], intents(a="m5"), RESOURCES)
    assert found == {"m5": {"small": 7200.0, "whole": 1800.0}}


def test_nodes_of_an_offer_are_averaged_by_tasks_and_unmanaged_nodes_do_not_count() -> None:
    nodes = [node("a", 1, small=(1.0, 30)), node("b", 1, small=(2.0, 10)), node("mine", 8, small=(0.1, 99))]
    found = update_speeds({"old": {"small": 5.0}}, nodes, intents(a="m5", b="m5"), RESOURCES)
    assert found == {"old": {"small": 5.0}, "m5": {"small": pytest.approx(3600 * 0.75 + 1800 * 0.25)}}


def test_few_tasks_are_no_measurement() -> None:
    assert update_speeds({}, [node("a", 1, small=(1.0, LEAST_TASKS - 1))], intents(a="m5"), RESOURCES) == {}


def test_offers_are_compared_kind_by_kind_and_pool_by_pool() -> None:
    speeds = {"m5": {"small": 300.0, "gpu": 10.0}, "m7": {"small": 100.0}, "new": {}}
    found = pool_speeds(speeds, RESOURCES)
    assert found["m5"] == {"cpu": pytest.approx(1.5), "gpu": pytest.approx(1.0)}
    assert found["m7"] == {"cpu": pytest.approx(0.5)} and found["new"] == {}


def offers(kinds: set[str]) -> st.SearchStrategy[list[dict[str, float]]]:
    """Offers that were all measured with the same kinds."""
    return st.lists(st.fixed_dictionaries(dict.fromkeys(kinds, st.floats(1e-3, 1e6))), min_size=1, max_size=4)


@given(st.sets(st.sampled_from(sorted(RESOURCES)), min_size=1).flatmap(offers), st.floats(1.1, 100.0))
def test_an_offer_that_is_faster_at_every_kind_is_faster_in_every_pool(others, times) -> None:
    fast = {kind: times * max(speeds[kind] for speeds in others) for kind in others[0]}
    found = pool_speeds({"fast": fast, **{f"m{number}": speeds for number, speeds in enumerate(others)}}, RESOURCES)
    for number in range(len(others)):
        assert all(found["fast"][pool] > speed for pool, speed in found[f"m{number}"].items())
