"""The same requirements always give the same lane, and a node that pulls from a lane can run its tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh import lanes, subjects
from mesh.errors import Fault
from mesh.messages import Accelerator, Capabilities, KindInfo, NodeRecord, encode

TOKENS = st.text("abcXYZ019_-", min_size=1, max_size=8)
REQUIRES = st.fixed_dictionaries(
    {},
    optional={
        "cores": st.one_of(st.integers(1, 16), st.just("all")),
        "memory_mb": st.integers(1, 64_000),
        "gpu_memory_mb": st.integers(1, 64_000),
        "accelerator": st.sampled_from(lanes.ACCELERATORS),
        "labels": st.dictionaries(TOKENS, TOKENS, max_size=3),
        "region": TOKENS,
        "node": TOKENS,
    },
)
NODES = st.builds(
    NodeRecord,
    id=TOKENS,
    name=TOKENS,
    incarnation=st.just("1"),
    slots=st.integers(1, 32),
    labels=st.dictionaries(TOKENS, TOKENS, max_size=3),
    region=TOKENS,
    capabilities=st.builds(
        Capabilities,
        memory_bytes=st.integers(0, 1 << 36),
        accelerators=st.lists(
            st.builds(Accelerator, st.sampled_from(lanes.ACCELERATORS[1:]), st.just("x"), st.integers(0, 1 << 36)),
            max_size=2,
        ).map(tuple),
    ),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("all")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(REQUIRES, st.randoms())
def test_the_pool_does_not_depend_on_the_order_of_requirements(requires, random) -> None:
    items = list(requires.items())
    random.shuffle(items)
    shuffled = {name: dict(reversed(value.items())) if isinstance(value, dict) else value for name, value in items}
    assert lanes.canonical(shuffled) == lanes.canonical(requires)
    assert lanes.pool_name(shuffled) == lanes.pool_name(requires)
    assert lanes.canonical(lanes.canonical(requires)) == lanes.canonical(requires)
    assert lanes.class_of(lanes.class_of(requires)) == lanes.class_of(requires)


@given(REQUIRES, REQUIRES)
def test_pools_are_the_same_exactly_when_they_require_the_same_class(requires, other) -> None:
    same = lanes.class_of(requires) == lanes.class_of(other)
    assert (lanes.pool_name(requires) == lanes.pool_name(other)) == same
    assert (lanes.pool_name(requires) == lanes.ANY) == (not lanes.canonical(requires))


@given(REQUIRES, st.sampled_from(subjects.URGENCIES))
def test_a_lane_has_a_valid_subject_and_is_read_back_from_its_durable(requires, urgency) -> None:
    assert lanes.requirement_faults(requires) == []
    lane = lanes.lane_for("echo", requires, urgency)
    assert subjects.lane_subject(*lane, "c1-1").count(".") == 4
    assert subjects.split_durable(subjects.lane_durable(*lane)) == lane


@given(REQUIRES, NODES)
def test_a_node_pulls_from_a_pool_exactly_when_it_meets_its_requirements(requires, node) -> None:
    pool = lanes.pool_name(requires)
    assert lanes.pulls_from(pool, lanes.canonical(requires), node) == (not lanes.meets(requires, node))
    if pool.startswith("p-"):
        assert not lanes.pulls_from(pool, None, node)
    if not lanes.meets(requires, node):
        assert lanes.pulls_from(pool, lanes.class_of(requires), node), "nobody who can do it is kept from its lane"


@given(st.integers(1, lanes.MAX_AMOUNT), st.integers(1, lanes.MAX_AMOUNT))
def test_a_step_is_close_below_and_keeps_the_order(amount: int, other: int) -> None:
    step = lanes.step_below(amount)
    assert amount * 0.8 < step <= amount and lanes.step_below(step) == step
    assert (lanes.step_below(other) <= step) or other > amount


def test_a_thousand_different_needs_of_memory_share_few_lanes() -> None:
    pools = {lanes.pool_name({"memory_mb": megabytes}) for megabytes in range(1, 1_000_000, 100)}
    assert len(pools) < 60


@given(REQUIRES, NODES)
def test_fewer_requirements_are_never_harder_to_meet(requires, node) -> None:
    unmet = len(lanes.meets(requires, node))
    for name in requires:
        less = {key: value for key, value in requires.items() if key != name}
        assert len(lanes.meets(less, node)) <= unmet
    assert lanes.meets({}, node) == ()


@given(REQUIRES, NODES)
def test_assigned_cores_are_at_least_one_and_fit_the_node(requires, node) -> None:
    given_cores = lanes.cores_for(requires, 1, node.slots)
    assert 1 <= given_cores <= node.slots
    if requires.get("cores") == "all" or not requires.get("cores"):
        assert lanes.cores_for(requires, "all", node.slots) == node.slots


@given(JUNK)
def test_any_input_is_either_refused_by_name_or_usable(requires) -> None:
    faults = lanes.requirement_faults(requires)
    assert all(isinstance(fault, Fault) and fault.field.startswith("requires") for fault in faults)
    if not faults:
        lanes.lane_for("echo", requires, "normal")
        encode(requires)


@given(st.dictionaries(st.sampled_from(lanes.REQUIREMENTS), JUNK, max_size=4))
def test_any_value_of_a_requirement_is_either_refused_by_name_or_usable(requires) -> None:
    if not lanes.requirement_faults(requires):
        lanes.meets(requires, NodeRecord(id="n", name="n", incarnation="1"))
        lanes.lane_for("echo", requires, "normal")
        encode(requires)


def test_a_kind_runs_only_on_nodes_that_report_it_available() -> None:
    kinds = (KindInfo("a", True), KindInfo("b", False, "no cv2"))
    node = NodeRecord(id="n", name="n", incarnation="1", capabilities=Capabilities(kinds=kinds))
    assert (lanes.runs("a", node), lanes.runs("b", node)) == ("", "no cv2")
    assert lanes.runs("c", node) == "does not know c"


@given(REQUIRES, st.sampled_from(subjects.URGENCIES), TOKENS, st.lists(TOKENS, max_size=3))
def test_an_origin_makes_a_lane_only_where_there_are_nodes(requires, urgency, origin, regions) -> None:
    kind, pool, _ = lanes.lane_for("echo", requires, urgency, origin, regions)
    assert (kind, pool.partition("@")[0]) == ("echo", lanes.pool_name(requires))
    makes = lanes.pool_name(requires) == lanes.ANY and len(regions) > 1 and origin in regions
    assert lanes.region_of(pool) == (origin if makes else "")
    if makes:
        assert lanes.is_open(pool) and lanes.pulls_from(pool, None, NodeRecord(id="a", name="a", incarnation="1"))
        subject = subjects.lane_subject(kind, pool, urgency, "c1-1")
        assert subject.count(".") == 4 and subjects.split_durable(subjects.lane_durable(kind, pool, urgency))


RANKS = st.integers(0, lanes.LAST)


@given(TOKENS, TOKENS, RANKS, RANKS)
def test_near_nodes_come_before_far_ones_and_ranks_decide_within_each_group(origin, region, rank, other_rank) -> None:
    pool = f"{lanes.ANY}@{origin}"
    near, far = (lanes.pull_priority(pool, where, rank) for where in (origin, f"not-{origin}"))
    assert 0 <= near <= far <= lanes.LAST
    assert near < lanes.pull_priority(pool, f"not-{origin}", other_rank) or rank == lanes.LAST
    assert (near == lanes.LAST) == (far == lanes.LAST) == (rank == lanes.LAST)
    if rank <= other_rank:
        assert lanes.pull_priority(pool, region, rank) <= lanes.pull_priority(pool, region, other_rank)
    assert lanes.pull_priority(lanes.ANY, region, rank) == rank, "without an origin only the rank decides"
