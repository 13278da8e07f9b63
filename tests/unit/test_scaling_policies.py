"""Each policy alone: sizes, schedules, offers, regions, budget limits, the circuit breaker."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from scaling.decision.budget import nodes_over_budget, room_usd_h
from scaling.decision.decide import decide
from scaling.decision.policies import cost, geo, predictive, reactive
from scaling.decision.schedule import parse_rule, scheduled_nodes
from scaling.domain.config import ScalingConfig
from scaling.domain.model import (
    DRAINING,
    ON_DEMAND,
    SPOT,
    STARTING,
    Forecast,
    Memory,
    Node,
    Observation,
    Offer,
    Pool,
)
from scaling.log.status import pool_seen

CONFIG = ScalingConfig()
NOW = 1_800_000_000.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def nodes(count: int, **facts) -> tuple[Node, ...]:
    return tuple(Node(f"n{number}", **facts) for number in range(count))


@pytest.mark.parametrize(
    ("load", "cpu", "queued", "task_s", "needed"),
    [
        (8.5, 0.0, 0, 0.0, 11),  # use 85 %: 8.5 x 1.25
        (7.9, 0.0, 0, 0.0, 10),  # in the dead band
        (2.0, 0.0, 0, 0.0, 3),  # use 20 %
        (2.0, 0.9, 0, 0.0, 12),  # the nodes report 90 %
        (2.0, 0.0, 101, 0.0, 16),  # 101 tasks of unknown length, 10 a node
        (2.0, 0.0, 101, 60.0, 28),  # 6060 s of work within 300 s
        (2.0, 0.0, 100, 60.0, 3),  # not over the target
    ],
)
def test_reactive_sizes_by_use_and_backlog(load, cpu, queued, task_s, needed):
    pool = Pool("p", load=load, cpu=cpu, queued=queued, task_s=task_s)
    assert reactive.propose(pool, 10, 10, CONFIG, trusted=False).nodes == needed


def test_predictive_scales_out_for_the_start_time_and_in_for_the_peak_until_then():
    expected = Forecast(at_start=12.1, until_start=15.0, trusted=True)
    assert predictive.propose(expected, 10, CONFIG).nodes == 13
    assert predictive.propose(expected, 14, CONFIG).nodes == 14
    assert predictive.propose(expected, 20, CONFIG).nodes == 15


def test_a_forecast_that_is_not_trusted_is_shown_and_not_used():
    pool = Pool("p", nodes(4), load=2.5)
    expected = {"p": Forecast(40.0, 40.0, why="it lost to reactive")}
    (made,) = decide(Observation((pool,)), expected, [Offer("o", "fake")], CONFIG, Memory(), NOW)[0].pools
    assert made.target == 4 and "predictive: not used: it lost to reactive" in made.trail


@pytest.mark.parametrize(
    ("when", "nodes_needed"),
    [
        ("2026-11-23 08:00", 5),  # a Monday
        ("2026-11-23 17:59", 5),
        ("2026-11-23 18:00", 0),
        ("2026-11-23 07:59", 0),
        ("2026-11-22 12:00", 0),  # a Sunday
    ],
)
def test_weekdays_8_to_18_at_least_5(when, nodes_needed):
    assert scheduled_nodes(["weekdays 8 to 18, at least 5"], "UTC", at(when))[0] == nodes_needed


def test_schedules_know_zones_nights_leads_and_the_highest_wins():
    assert scheduled_nodes(["daily 8 to 9, at least 2"], "Europe/Berlin", at("2026-11-23 07:30"))[0] == 2
    night = ["fri 22 to 6, at least 3"]
    assert scheduled_nodes(night, "UTC", at("2026-11-28 05:59"))[0] == 3  # Saturday morning
    assert scheduled_nodes(night, "UTC", at("2026-11-27 05:59"))[0] == 0  # Friday morning
    assert scheduled_nodes(["weekdays 8 to 18, at least 5"], "UTC", at("2026-11-23 07:56"), lead_s=300)[0] == 5
    assert scheduled_nodes([*night, "sat-mon 0 to 24 at least 9"], "UTC", at("2026-11-28 05:59"))[0] == 9


@pytest.mark.parametrize(
    "text", ["", "sometimes 8 to 9, at least 1", "daily 8 to 8, at least 1", "daily 8 to 25, at least 1"]
)
def test_an_invalid_rule_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="is no|same time"):
        parse_rule(text)
    with pytest.raises(ValueError, match="time zone"):
        scheduled_nodes(["daily 0 to 24, at least 1"], "Mars/Olympus", NOW)


def test_a_unit_of_work_costs_price_over_useful_speed():
    plain = Offer("a", "fake", price_usd_h=1.0, start_s=0.0, speed={"p": 4.0})
    slow_start = replace(plain, id="b", start_s=900.0)
    shaky = replace(plain, id="c", interruptions_h=0.5)
    far = replace(plain, id="d", egress_usd_gb=0.1)
    config = ScalingConfig(expected_life_s=3600, rework_s=360, egress_gb_h=10)
    costs = [cost.usd_per_unit(offer, "p", [plain], config) for offer in (plain, slow_start, shaky, far)]
    assert costs == pytest.approx([0.25, 0.25 / 0.75, 0.25 / 0.95, 0.5])


def test_speed_is_estimated_by_cores_until_measured():
    measured = Offer("a", "fake", vcpus=4, speed={"p": 40.0})
    assert cost.speed_of(Offer("b", "fake", vcpus=8), "p", [measured]) == 80.0
    assert cost.speed_of(Offer("g", "fake", vcpus=8, has_gpu=True), "p", [measured]) == 8.0


def test_spot_is_spread_and_on_demand_has_its_minimum_share():
    def made(name: str, market: str, price: float, kind: str) -> Offer:
        return Offer(name, "fake", type=kind, market=market, price_usd_h=price)

    offers = [made("od", ON_DEMAND, 1.0, "a"), made("s1", SPOT, 0.3, "a"), made("s2", SPOT, 0.35, "b")]
    launches, _ = cost.choose_offers(Pool("p"), 10, [], offers, math.inf, {}, CONFIG, NOW)
    counts = {launch.offer: launch.count for launch in launches}
    assert counts["od"] == 3 and abs(counts["s1"] - counts["s2"]) <= 1


def test_nodes_start_near_the_demand_unless_that_costs_much_more():
    near = Offer("near", "fake", region="eu-west-1", price_usd_h=1.2)
    far = Offer("far", "fake", region="us-east-1", price_usd_h=1.0)
    pool = Pool("p", demand_by_region={"eu-west-1": 1.0})
    pick = cost.choose_offers(pool, 1, [], [near, far], math.inf, {}, CONFIG, NOW)[0]
    assert [launch.offer for launch in pick] == ["near"]
    dear = replace(near, price_usd_h=1.3)
    assert [launch.offer for launch in cost.choose_offers(pool, 1, [], [dear, far], math.inf, {}, CONFIG, NOW)[0]] == [
        "far"
    ]
    held = replace(pool, region="eu")
    assert [launch.offer for launch in cost.choose_offers(held, 1, [], [dear, far], math.inf, {}, CONFIG, NOW)[0]] == [
        "near"
    ]


def test_regions_share_nodes_as_they_share_demand():
    offers = [Offer(name, "fake", region=name, price_usd_h=1.0) for name in ("eu-west-1", "us-east-1")]
    pool = Pool("p", demand_by_region={"eu-west-1": 3.0, "us-east-1": 1.0})
    launches, _ = cost.choose_offers(pool, 8, [], offers, math.inf, {}, CONFIG, NOW)
    assert {launch.offer: launch.count for launch in launches} == {"eu-west-1": 6, "us-east-1": 2}


def test_distances_by_coordinates_else_by_names():
    places = {"fra": (50.1, 8.7), "nyc": (40.7, -74.0)}
    assert geo.distance_km("fra", "nyc", places) == pytest.approx(6200, abs=60)
    assert geo.distance_km("eu-west-1", "eu-north-1", {}) < geo.distance_km("eu-west-1", "us-east-1", {})


def test_a_gpu_pool_counts_and_starts_gpu_nodes_only():
    pool = Pool("p", nodes(5), load=2.0, queued=1, needs_gpu=True)
    offers = [Offer("cpu", "fake"), Offer("gpu", "fake", has_gpu=True)]
    (made,) = decide(Observation((pool,)), {}, offers, CONFIG, Memory(), NOW)[0].pools
    assert made.have == 0 and {launch.offer for launch in made.launches} == {"gpu"}


def test_the_daily_limit_counts_another_hour_of_running_nodes():
    config = ScalingConfig(budget_usd_day=10.0)
    noon = at("2026-11-23 12:00")
    assert room_usd_h(2.0, 7.0, config, noon)[0] == pytest.approx(1.0)
    assert room_usd_h(2.0, 9.0, config, noon)[0] == pytest.approx(-1.0)
    assert room_usd_h(2.0, 9.0, config, noon + 11.5 * 3600)[0] == pytest.approx(0.0)  # half an hour is left


def test_over_the_budget_idle_nodes_drain_first_and_draining_ones_count():
    seen = (
        Node("busy", price_usd_h=3.0, running=1),
        Node("idle", price_usd_h=1.0),
        Node("going", price_usd_h=1.0, state=DRAINING),
        Node("own", price_usd_h=0.0),
    )
    assert nodes_over_budget(seen, 1.5) == ("idle",)
    assert nodes_over_budget(seen, 3.0) == ("idle", "busy")


def test_an_offer_that_fails_is_skipped_and_another_one_taken():
    offers = [
        Offer("bad", "fake", price_usd_h=0.1, market=ON_DEMAND),
        Offer("good", "fake", price_usd_h=0.2, market=ON_DEMAND),
    ]
    pool = Pool("p", load=1.0)
    memory, taken = Memory(), []
    for number in range(4):
        failed = ("bad",) if number else ()
        decision, memory = decide(Observation((pool,), failed_offers=failed), {}, offers, CONFIG, memory, NOW + number)
        taken.append({launch.offer for launch in decision.pools[0].launches})
    assert taken == [{"bad"}, {"bad"}, {"good"}, {"good"}]
    joined = Observation((pool,), joined_offers=("bad",))
    assert "bad" not in decide(joined, {}, offers, CONFIG, memory, NOW + 9)[1].breakers


def test_a_node_that_will_be_taken_away_drains_and_is_replaced():
    seen = (*nodes(3, launched_at=NOW - 900, running=1), Node("last", ending=True, running=1))
    pool = Pool("p", seen, load=3.9)
    (made,) = decide(Observation((pool,)), {}, [Offer("o", "fake")], CONFIG, Memory(), NOW)[0].pools
    assert made.drains == ("last",) and made.have == 3 and made.launches[0].count == 2


def test_scale_in_takes_expensive_idle_nodes_and_leaves_new_ones():
    seen = (
        Node("young", launched_at=NOW - 10, price_usd_h=9.0),
        Node("busy", running=1, price_usd_h=9.0),
        Node("dear", price_usd_h=2.0),
        Node("cheap", price_usd_h=1.0),
        Node("ours", price_usd_h=9.0, managed=False),
    )
    assert cost.choose_drains(Pool("p"), 1, seen, CONFIG, NOW) == ("dear",)
    assert cost.choose_drains(Pool("p"), 9, seen, CONFIG, NOW) == ("dear", "cheap")


def test_contradictions_in_the_settings_are_all_named():
    with pytest.raises(ValueError, match="min_nodes.*cpu_down"):
        ScalingConfig(min_nodes=5, max_nodes=4, cpu_down=0.9)
    with pytest.raises(ValueError, match="NaN"):
        ScalingConfig(budget_usd_h=math.nan)


def test_a_pool_in_full_use_is_not_shown_without_load():
    """The load is of what arrived lately: a task of an hour, or of a kind that was never timed, is not in it."""
    nodes = (Node("a", running=2), Node("b"), Node("c", state=STARTING))
    assert pool_seen(Pool("cpu", nodes, load=0.0, cpu=0.5))["load"] == 1.0
    assert pool_seen(Pool("cpu", nodes, load=7.5, cpu=1.0))["load"] == 7.5
    assert pool_seen(Pool("cpu", nodes[1:], load=0.0, cpu=0.0))["load"] == 0.0
