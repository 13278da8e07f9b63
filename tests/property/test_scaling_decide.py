"""A decision keeps within bounds and budget, never drains a busy node, never flaps, and always says why."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.decision.budget import room_usd_h
from scaling.decision.decide import decide
from scaling.domain.config import ScalingConfig
from scaling.domain.model import (
    DRAINING,
    ON_DEMAND,
    OWN,
    READY,
    SPOT,
    STARTING,
    Breaker,
    Forecast,
    Memory,
    Node,
    Observation,
    Offer,
    Pool,
    PoolMemory,
)  # fmt: skip
from tests.examples import examples

NOW = 1_800_000_000.0
REGIONS = ("", "eu-west-1", "eu-north-1", "us-east-1")

OFFERS = st.lists(
    st.builds(
        Offer,
        id=st.sampled_from([f"o{n}" for n in range(6)]),
        provider=st.just("fake"),
        type=st.sampled_from(["a", "b"]),
        region=st.sampled_from(REGIONS),
        zone=st.sampled_from(["x", "y"]),
        market=st.sampled_from([OWN, ON_DEMAND, SPOT]),
        price_usd_h=st.floats(0, 5),
        has_gpu=st.booleans(),
        start_s=st.floats(0, 900),
        interruptions_h=st.floats(0, 0.5),
        available=st.integers(0, 30),
    ),
    max_size=6,
    unique_by=lambda offer: offer.id,
)
NODES = st.lists(
    st.builds(
        Node,
        id=st.uuids().map(str),
        offer=st.sampled_from(["", "o1", "o2"]),
        state=st.sampled_from([READY, READY, READY, STARTING, DRAINING]),
        launched_at=st.floats(NOW - 5000, NOW),
        running=st.sampled_from([0, 0, 1, 3]),
        price_usd_h=st.floats(0, 5),
        market=st.sampled_from([OWN, ON_DEMAND, SPOT]),
        region=st.sampled_from(REGIONS),
        has_gpu=st.booleans(),
        ending=st.sampled_from([False, False, False, True]),
        managed=st.sampled_from([True, True, True, False]),
    ),
    max_size=12,
    unique_by=lambda node: node.id,
).map(tuple)
POOLS = st.builds(
    Pool,
    name=st.just("p"),
    nodes=NODES,
    load=st.floats(0, 40),
    cpu=st.floats(0, 1),
    queued=st.integers(0, 500),
    task_s=st.sampled_from([0.0, 0.5, 20.0]),
    needs_gpu=st.booleans(),
    region=st.sampled_from(["", "", "eu", "us-east-1"]),
    demand_by_region=st.dictionaries(st.sampled_from(REGIONS), st.floats(0, 1), max_size=3),
)
FORECASTS = st.none() | st.builds(
    Forecast, at_start=st.floats(0, 60), until_start=st.floats(0, 60), median=st.floats(0, 60), trusted=st.booleans(),
    model=st.just("m"), why=st.just("w"),
)  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> ScalingConfig:
    low = draw(st.integers(0, 5))
    return ScalingConfig(
        mode=draw(st.sampled_from(["reactive", "predictive", "hybrid"])),
        min_nodes=low,
        max_nodes=low + draw(st.integers(0, 40)),
        max_step_up_nodes=draw(st.integers(1, 20)),
        max_step_down_nodes=draw(st.integers(1, 20)),
        headroom=draw(st.floats(0, 2)),
        up_votes=draw(st.integers(1, 3)),
        down_votes=draw(st.integers(1, 3)),
        up_window_s=draw(st.sampled_from([0.0, 120.0])),
        down_window_s=draw(st.sampled_from([0.0, 300.0])),
        warm_spares_nodes=draw(st.integers(0, 3)),
        baseline_nodes=draw(st.integers(0, 5)),
        schedule=draw(st.sampled_from([(), ("daily 0 to 24, at least 4",)])),
        budget_usd_h=draw(st.sampled_from([math.inf, 0.0, 3.0, 20.0])),
        budget_usd_day=draw(st.sampled_from([math.inf, 0.0, 10.0, 100.0])),
    )


AGO = st.floats(NOW - 900, NOW - 1)


def lined(line: list[tuple[float, int]], falling: bool) -> tuple[tuple[float, int], ...]:
    """(time, nodes) pairs as a memory holds them: times rise while counts fall (or rise)."""
    return tuple(zip(sorted(at for at, _ in line), sorted((n for _, n in line), reverse=falling), strict=True))


LINES = st.lists(st.tuples(st.floats(NOW - 400, NOW - 1), st.integers(0, 40)), max_size=4)
MEMORIES = st.builds(
    Memory,
    pools=st.builds(
        PoolMemory, up_votes=st.integers(0, 3), down_votes=st.integers(0, 3),
        max_needs=LINES.map(lambda line: lined(line, falling=True)),
        min_needs=LINES.map(lambda line: lined(line, falling=False)),
        last_scale_in_at=AGO, last_work_at=AGO, last_peak_at=AGO,
    ).map(lambda pool_memory: {"p": pool_memory}) | st.just({}),
    breakers=st.dictionaries(
        st.sampled_from(["o1", "o2"]), st.builds(Breaker, st.integers(1, 9), st.floats(NOW - 9, NOW + 99))
    ),
)  # fmt: skip
SPENT = st.sampled_from([0.0, 5.0, 99.0])


@given(POOLS, FORECASTS, OFFERS, configs(), MEMORIES, SPENT)
def test_a_decision_keeps_its_limits_and_says_why(pool, forecast, offers, config, memory, spent) -> None:
    seen = Observation((pool,), spent_today_usd=spent)
    decision, _ = decide(seen, {"p": forecast} if forecast else {}, offers, config, memory, NOW)
    (made,) = decision.pools
    counted = {node.id: node for node in pool.nodes if node.has_gpu or not pool.needs_gpu}
    started = sum(launch.count for launch in made.launches)
    assert made.trail and all(made.trail)
    # bounds
    assert not started or made.have + started <= config.max_nodes
    assert made.target <= max(config.max_nodes, made.have)
    room, _ = room_usd_h(decision.running_usd_h, spent, config, NOW)
    leaving = [node for node in counted.values() if node.ending or node.state == DRAINING]
    gone = len(counted) - len(leaving) - made.have  # drained because of the budget
    if made.target < config.min_nodes and room >= 0:
        assert any("not started" in reason or "a decision starts at most" in reason for reason in made.trail)
    # budget: no launch exceeds either limit
    assert decision.launched_usd_h <= max(0.0, room) + 1e-6
    # work in flight: a busy node is drained only for the budget or because the provider takes it away
    drained_busy = [drained for drained in made.drains if counted[drained].running and not counted[drained].ending]
    assert not drained_busy or (room < 0 and gone)
    assert all(counted[drained].managed or counted[drained].ending for drained in made.drains)
    assert all(not counted[ended].running and counted[ended].state == DRAINING for ended in made.ends)
    # every launch is allowed
    by_id = {offer.id: offer for offer in offers}
    for launch in made.launches:
        offer = by_id[launch.offer]
        assert 0 < launch.count <= offer.available
        assert offer.has_gpu or not pool.needs_gpu
        assert offer.region.startswith(pool.region)
        broken = memory.breakers.get(launch.offer)
        assert not broken or broken.open_until <= NOW
    # one direction at a time
    assert not (started and set(made.drains) - {node.id for node in leaving} and room >= 0)


@given(POOLS, FORECASTS, OFFERS, configs(), MEMORIES, SPENT)
def test_the_same_facts_give_the_same_decision(pool, forecast, offers, config, memory, spent) -> None:
    seen = Observation((pool,), spent_today_usd=spent)
    given_forecast = {"p": forecast} if forecast else {}
    once = decide(seen, given_forecast, offers, config, memory, NOW)
    assert once == decide(seen, given_forecast, list(offers), config, memory, NOW)


@given(
    POOLS,
    FORECASTS,
    OFFERS,
    configs(),
    MEMORIES,
    SPENT,
    st.floats(0, 30),
    st.integers(0, 300),
    st.floats(0, 1),
    st.floats(0, 30),
)
def test_more_demand_never_lowers_the_target(
    pool, forecast, offers, config, memory, spent, load, queued, cpu, more
) -> None:
    busier = replace(pool, load=pool.load + load, queued=pool.queued + queued, cpu=max(pool.cpu, cpu))
    higher = forecast and replace(forecast, at_start=forecast.at_start + more, until_start=forecast.until_start + more)
    targets = [
        decide(Observation((seen_pool,), spent), {"p": expected} if expected else {}, offers, config, memory, NOW)[
            0
        ].pools[0]
        for seen_pool, expected in ((pool, forecast), (busier, higher))
    ]
    assert targets[1].target >= targets[0].target
    assert set(targets[1].drains) <= set(targets[0].drains)


@settings(max_examples=examples(50))
@given(st.lists(st.floats(0, 40), max_size=30), configs())
def test_a_replay_is_the_same(loads, config) -> None:
    assert live(loads, config, 60.0) == live(loads, config, 60.0)


def live(loads: list[float], config: ScalingConfig, every_s: float, start_steps: int = 2) -> list[int]:
    """The targets, step by step, of a pool whose nodes are always ready after `start_steps`."""
    offer = Offer("o", "fake", market=OWN)
    nodes: list[Node] = []
    memory, targets, made = Memory(), [], 0
    for number, load in enumerate(loads):
        now = NOW + number * every_s
        nodes = [
            node._replace(state=READY)
            if now - node.launched_at >= start_steps * every_s and node.state == STARTING
            else node
            for node in nodes
        ]
        ready = [node for node in nodes if node.state == READY]
        whole = math.ceil(load)
        busy = {node.id for node in ready[:whole]}
        nodes = [node._replace(running=int(node.id in busy)) for node in nodes]
        pool = Pool("p", tuple(nodes), load=load, cpu=min(1.0, load / len(ready)) if ready else 0.0)
        decision, memory = decide(Observation((pool,)), {}, [offer], config, memory, now)
        (pool_decision,) = decision.pools
        for launch in pool_decision.launches:
            for _ in range(launch.count):
                made += 1
                nodes.append(Node(f"n{made}", launch.offer, STARTING, now))
        nodes = [
            node._replace(state=DRAINING) if node.id in pool_decision.drains else node
            for node in nodes
            if node.id not in pool_decision.ends
        ]
        assert len([node for node in nodes if node.state != DRAINING]) == pool_decision.target
        targets.append(pool_decision.target)
    return targets


@settings(max_examples=examples(25))
@given(st.lists(st.floats(-1, 1), min_size=240, max_size=240), st.floats(1, 12), st.floats(0, 0.9))
def test_noise_does_not_make_it_flap(noise, level, amplitude) -> None:
    every_s = 60.0
    config = ScalingConfig(max_nodes=60, down_window_s=600)
    targets = live([level * (1 + amplitude * sample) for sample in noise], config, every_s)
    moves = [after - before for before, after in itertools.pairwise(targets) if after != before]
    turns = sum(1 for before, after in itertools.pairwise(moves) if (before > 0) != (after > 0))
    hours = len(noise) * every_s / 3600
    assert sum(move < 0 for move in moves) <= hours * 3600 / config.down_window_s + 1
    assert turns <= 2 * (hours * 3600 / config.down_window_s + 1)
    # scale-outs are at most as many as levels of the noise can be passed between two scale-ins
    assert len(moves) <= (hours * 6 + 1) * (2 + math.ceil(math.log(max(2.0, 2 * level), 1.1)))


@given(st.floats(2, 20), st.integers(1, 4))
def test_it_follows_a_load_goes_to_zero_and_comes_back(level, spares) -> None:
    config = ScalingConfig(warm_spares_nodes=spares, min_life_s=60)
    targets = live([0.0] * 3 + [level] * 20 + [0.0] * 40 + [level] * 5, config, 60.0)
    assert targets[2] == 0
    assert targets[22] >= math.ceil(level)
    assert targets[62] == 0
    assert targets[-1] >= math.ceil(level)


def test_from_one_to_fifty_nodes_and_back_to_ten_in_simulated_time() -> None:
    config = ScalingConfig(min_nodes=1, max_nodes=50, max_step_up_nodes=50, baseline_nodes=10, baseline_keep_s=86400)
    targets = live([0.0] * 3 + [60.0] * 40 + [0.0] * 120, config, 60.0, start_steps=10)
    assert targets[2] == 1 and max(targets) == 50 and targets[-1] == 10
