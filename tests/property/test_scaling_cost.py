"""Which nodes drain when fewer are needed: the cheapest ones stay that keep the on-demand floor."""

from __future__ import annotations

from itertools import combinations
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from scaling.decision.policies import cost
from scaling.domain.config import ScalingConfig
from scaling.domain.model import ON_DEMAND, SPOT, Node, Pool

NOW = 10_000.0
PRICES = {ON_DEMAND: st.floats(1.0, 2.0), SPOT: st.floats(0.1, 0.9)}
RENTED = st.sampled_from((ON_DEMAND, SPOT)).flatmap(lambda market: st.tuples(st.just(market), PRICES[market]))


@given(st.lists(RENTED, min_size=1, max_size=9), st.data())
def test_the_cheapest_nodes_that_keep_the_on_demand_floor_stay(rented, data) -> None:
    count = data.draw(st.integers(0, len(rented)))
    config = ScalingConfig(on_demand_floor=data.draw(st.sampled_from((0.0, 0.3, 0.5, 1.0))))
    nodes = [Node(f"n{at}", market=market, price_usd_h=price) for at, (market, price) in enumerate(rented)]

    def keeps_floor(left) -> bool:
        spots = [node for node in left if node.market == SPOT]
        firm = len(left) - len(spots)
        enough = min(sum(node.market == ON_DEMAND for node in nodes), ceil(config.on_demand_floor * len(left)))
        return not spots or firm >= enough

    gone = cost.choose_drains(Pool("p"), count, nodes, config, NOW)
    left = [node for node in nodes if node.id not in gone]
    assert len(gone) == len(set(gone)) == count and keeps_floor(left)
    cheapest = min(
        sum(node.price_usd_h for node in each) for each in combinations(nodes, len(nodes) - count) if keeps_floor(each)
    )
    assert sum(node.price_usd_h for node in left) <= cheapest + 1e-9


def test_after_a_pulse_on_demand_nodes_drain_with_the_spot_nodes() -> None:
    """Once only spot nodes drained, because the floor was computed for the size of the pulse."""
    nodes = [Node(f"d{at}", market=ON_DEMAND, price_usd_h=0.192) for at in range(9)]
    nodes += [Node(f"s{at}", market=SPOT, price_usd_h=0.07) for at in range(19)]
    gone = cost.choose_drains(Pool("p"), 18, nodes, ScalingConfig(on_demand_floor=0.3), NOW)
    assert sum(name.startswith("d") for name in gone) == 6 and len(gone) == 18
