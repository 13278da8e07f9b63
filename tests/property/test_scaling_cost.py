"""Which nodes go when fewer are needed: the cheapest ones are left that keep the on-demand floor."""

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
def test_what_is_left_is_the_cheapest_that_keeps_the_on_demand_floor(rented, data) -> None:
    count = data.draw(st.integers(0, len(rented)))
    config = ScalingConfig(on_demand_floor=data.draw(st.sampled_from((0.0, 0.3, 0.5, 1.0))))
    nodes = [Node(f"n{at}", market=market, price_usd_h=price) for at, (market, price) in enumerate(rented)]

    def keeps_floor(left) -> bool:
        spots = [one for one in left if one.market == SPOT]
        firm = len(left) - len(spots)
        enough = min(sum(one.market == ON_DEMAND for one in nodes), ceil(config.on_demand_floor * len(left)))
        return not spots or firm >= enough

    gone = cost.choose_drains(Pool("p"), count, nodes, config, NOW)
    left = [one for one in nodes if one.id not in gone]
    assert len(gone) == len(set(gone)) == count and keeps_floor(left)
    cheapest = min(
        sum(one.price_usd_h for one in each) for each in combinations(nodes, len(nodes) - count) if keeps_floor(each)
    )
    assert sum(one.price_usd_h for one in left) <= cheapest + 1e-9


def test_a_pulse_that_is_over_leaves_its_on_demand_nodes_with_its_spot_nodes() -> None:
    """They were all kept, and spot nodes given up alone, because the floor was that of the pulse."""
    nodes = [Node(f"d{at}", market=ON_DEMAND, price_usd_h=0.192) for at in range(9)]
    nodes += [Node(f"s{at}", market=SPOT, price_usd_h=0.07) for at in range(19)]
    gone = cost.choose_drains(Pool("p"), 18, nodes, ScalingConfig(on_demand_floor=0.3), NOW)
    assert sum(name.startswith("d") for name in gone) == 6 and len(gone) == 18
