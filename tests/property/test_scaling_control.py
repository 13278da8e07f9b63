"""Orders are neither doubled nor lost, the launch guard holds for any decision, every policy is validated."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.capacity import TOKEN_LABEL
from mesh.errors import BadInput
from mesh.membership.member import Member
from mesh.messages import Heartbeat, NodeRecord
from scaling.decision import launch_guard
from scaling.decision.decide import decide
from scaling.decision.handover import clamp_to_clock
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Breaker, Memory, Node, Observation, Offer, Pool, PoolMemory
from scaling.log import decision_record as record
from scaling.observation.observe import ArrivalWindow, Facts, all_nodes, count_arrivals, observe
from scaling.observation.reconcile import Listing, reconcile
from scaling.providers.base import Instance
from scaling.state import settings as policy
from scaling.state.memory import State
from scaling.state.orders import ENDING, INTENDED, JOINED, LAUNCHED, Intent
from scaling.state.spend import add_spending

NOW, SINCE = 1_800_000_000.0, 1_800_000_000.0 - 500
TOKENS = [f"x{n}" for n in range(6)]
PLACES = {"here": "", "local": "machine-a"}
CONFIG = ScalingConfig()
AT = st.floats(NOW - 4000, NOW + 4000)

INTENTS = st.lists(
    st.builds(
        Intent, token=st.sampled_from(TOKENS), provider=st.sampled_from(["here", "local", "unknown"]),
        offer=st.sampled_from(["a", "b"]), pool=st.just("cpu"), place=st.sampled_from(["", "machine-a", "machine-b"]),
        state=st.sampled_from([INTENDED, LAUNCHED, JOINED, ENDING]), at=AT, ending_at=AT, instance=st.just("i"),
        price_usd_h=st.floats(0, 3),
    ),
    unique_by=lambda intent: intent.token,
)  # fmt: skip
INSTANCES = st.lists(
    st.builds(
        Instance, id=st.sampled_from([f"i{n}" for n in range(9)]), token=st.sampled_from([*TOKENS, "", "xstranger"]),
        mesh_id=st.just("m"), launched_at=st.floats(0, 2 * NOW),
    ),
    unique_by=lambda instance: instance.id,
).map(tuple)  # fmt: skip
LISTINGS = st.dictionaries(st.sampled_from(["here", "local"]), INSTANCES).map(
    lambda found: {name: Listing(PLACES[name], instances) for name, instances in found.items()}
)


def _member(token: str, state: str, running: int) -> Member:
    record = NodeRecord(id=f"n{token}", name=token, incarnation="1", labels={TOKEN_LABEL: token})
    return Member(record, state, Heartbeat(node=f"n{token}", incarnation="1", seq=1, running=running))


MEMBERS = st.lists(
    st.builds(
        _member, st.sampled_from([*TOKENS, "xstranger"]), st.sampled_from(["up", "draining", "gone", "left"]),
        st.integers(0, 2),
    ),
    unique_by=lambda member: member.record.id,
)  # fmt: skip


@given(INTENTS, LISTINGS, MEMBERS)
def test_no_order_vanishes_and_none_is_doubled(intents, listings, members):
    found = reconcile(intents, listings, members, PLACES, SINCE, CONFIG, NOW)
    before = {intent.token for intent in intents}
    assert set(found.intents) | set(found.forget) >= before
    assert not set(found.intents) & set(found.forget)
    alive = {member.record.labels[TOKEN_LABEL] for member in members if member.state in ("up", "draining")}
    assert not alive & set(found.forget), "a living node keeps its order"
    assert all(intent in found.intents.values() for intent in found.write)


@given(INTENTS, LISTINGS, MEMBERS)
def test_a_missing_listing_ends_and_forgets_nothing(intents, listings, members):
    found = reconcile(intents, listings, members, PLACES, SINCE, CONFIG, NOW)
    silent = {name for name in PLACES if name not in listings}
    assert not [name for name, _ in found.end if name in silent]
    by_token = {intent.token: intent for intent in intents}
    assert not [
        token for token in found.forget
        if by_token[token].provider in silent and by_token[token].place == PLACES[by_token[token].provider]
    ]  # fmt: skip


@given(INTENTS, LISTINGS, MEMBERS)
def test_a_working_node_is_ended_only_on_order_or_when_it_is_a_duplicate(intents, listings, members):
    found = reconcile(intents, listings, members, PLACES, SINCE, CONFIG, NOW)
    ending = {intent.token for intent in found.intents.values() if intent.state == ENDING}
    works = {member.record.labels[TOKEN_LABEL] for member in members if member.state == "up"} - ending
    for name, listing in listings.items():
        tokens = [instance.token for instance in listing.instances]
        for instance in listing.instances:
            if instance.token in works and tokens.count(instance.token) == 1 and (name, instance.id) in found.end:
                owner = found.intents[instance.token]
                assert (owner.provider, owner.place) != (name, listing.place), (
                    "only a duplicate at another provider is ended"
                )


@given(INTENTS, LISTINGS, MEMBERS)
def test_a_second_reconciliation_finds_no_new_failure_and_no_new_join(intents, listings, members):
    found = reconcile(intents, listings, members, PLACES, SINCE, CONFIG, NOW)
    again = reconcile(found.intents.values(), listings, members, PLACES, SINCE, CONFIG, NOW)
    assert not again.joined and not again.failed


@given(
    st.lists(st.floats(0, 3), max_size=20), st.floats(0, 40), st.booleans(), st.booleans(), st.booleans(),
    st.integers(0, 12), st.sampled_from([0.0, 2.5, math.inf]), st.sampled_from([0.0, 9.0, math.inf]),
)  # fmt: skip
def test_whatever_is_decided_the_launch_guard_holds(prices, gone_usd, paid, has_key, panic, most, hour, day):
    """Each order is checked against what runs at that time: together they never exceed a limit."""
    config = ScalingConfig(max_nodes=most, budget_usd_h=hour, budget_usd_day=day)
    nodes: list[Node] = []
    for number, price in enumerate(prices):
        offer = Offer("o", "p", price_usd_h=price)
        if not launch_guard.refusal(offer, paid, nodes, gone_usd, has_key, panic, config, NOW):
            nodes.append(Node(str(number), price_usd_h=price))
    running = sum(node.price_usd_h for node in nodes)
    assert len(nodes) <= most and running <= hour + 1e-6
    assert not (paid and nodes and (panic or not has_key))
    if running > 0 and day < math.inf:
        left_h = min(config.commit_s, 86400 - NOW % 86400) / 3600
        assert gone_usd + running * left_h <= day + 1e-6


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2), max_leaves=4,
)  # fmt: skip
NAMES = [setting.name for setting in fields(ScalingConfig)]


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), JSON, max_size=5))
def test_a_policy_is_valid_or_refused_with_every_fault_named(settings):
    try:
        config = policy.checked(settings)
    except BadInput as refusal:
        unknown = set(settings) - set(NAMES)
        assert refusal.faults and unknown <= {fault.field for fault in refusal.faults}
    else:
        assert not config.faults() and config.max_nodes <= policy.MOST_NODES


def test_all_wrong_settings_are_reported_at_once():
    with pytest.raises(BadInput) as caught:
        policy.checked({"max_nodes": "many", "cpu_up": [], "moon": 1, "schedule": "mondays"})
    assert {fault.field for fault in caught.value.faults} == {"max_nodes", "cpu_up", "moon", "schedule"}
    with pytest.raises(BadInput) as caught:
        policy.checked({"min_nodes": 5, "max_nodes": 3, "schedule": ["at noon"], "timezone": "Moon", "mode": "x"})
    assert {fault.field for fault in caught.value.faults} == {"min_nodes", "schedule", "timezone", "mode"}


def test_flags_make_a_policy_once_and_settings_by_hand_win_over_them():
    made = policy.from_flags(None, {"max_nodes": 7}, "n1", NOW)
    assert made is not None and made.enabled and policy.config_of(made).max_nodes == 7 and made.version == 1
    assert policy.from_flags(made, {"max_nodes": 7}, "n2", NOW) is None
    assert policy.from_flags(None, {}, "n1", NOW) is None
    more = policy.from_flags(made, {"max_nodes": 9, "min_nodes": 2}, "n1", NOW)
    assert more is not None and (more.version, more.settings) == (2, {"max_nodes": 9, "min_nodes": 2})
    off = policy.from_flags(more, {"max_nodes": 0}, "n1", NOW)
    assert off is not None and not off.enabled
    hand = policy.changed(made, {"max_nodes": 3}, None, policy.BY_HAND, "n1", NOW)
    assert policy.from_flags(hand, {"max_nodes": 50}, "n1", NOW) is None
    back = policy.changed(hand, {"max_nodes": None, "budget_usd_h": None}, None, policy.BY_HAND, "n1", NOW)
    assert policy.config_of(back) == ScalingConfig()


def test_a_setting_made_by_hand_leaves_the_switch_to_the_flags():
    """`queztl scale policy budget_usd_h=2.5` on a plain node, then `--max-nodes 4`: the flag was ignored for good."""
    hand = policy.changed(policy.Policy(), {"budget_usd_h": 2.5}, None, policy.BY_HAND, "n1", NOW)
    assert not hand.enabled and "nobody has turned scaling on" in policy.off_reason(hand)
    on = policy.from_flags(hand, {"max_nodes": 4}, "n1", NOW)
    assert on is not None and on.enabled and on.settings == {"budget_usd_h": 2.5, "max_nodes": 4}
    assert policy.ignored_flags(hand, {"max_nodes": 4}) == "" == policy.ignored_flags(on, {"max_nodes": 4})

    off = policy.changed(on, {}, False, policy.BY_HAND, "n1", NOW)
    assert policy.from_flags(off, {"max_nodes": 4}, "n1", NOW) is None, "a person has turned it off"
    assert "turned off by hand" in policy.off_reason(off)
    assert policy.ignored_flags(off, {"max_nodes": 4}) == "scaling was turned off by hand"
    more = policy.from_flags(off, {"max_nodes": 9}, "n1", NOW)
    assert more is not None and not more.enabled, "the limit follows the flag, the switch stays"

    limit = policy.changed(on, {"max_nodes": 2}, None, policy.BY_HAND, "n1", NOW)
    assert policy.from_flags(limit, {"max_nodes": 9}, "n1", NOW) is None
    assert policy.ignored_flags(limit, {"max_nodes": 9}) == "max_nodes was set to 2 by hand"
    assert policy.from_flags(limit, {"max_nodes": 9, "min_nodes": 3}, "n1", NOW) is None, "no contradiction"
    reset = policy.changed(limit, {"max_nodes": None}, None, policy.BY_HAND, "n1", NOW)
    back = policy.from_flags(reset, {"max_nodes": 9}, "n1", NOW)
    assert back is not None and back.settings["max_nodes"] == 9
    none = policy.from_flags(on, {"max_nodes": 0}, "n1", NOW)
    assert none is not None and "--max-nodes 0" in policy.off_reason(none)


def test_a_policy_of_an_earlier_version_keeps_what_a_person_may_have_set():
    old = policy.Policy(version=1, enabled=False, settings={"budget_usd_h": 2.5}, by=policy.BY_HAND)
    assert old.fixed == {"budget_usd_h"}, "its settings only: nobody has turned anything off"
    for switched in (
        policy.Policy(version=2, enabled=False, settings={"budget_usd_h": 2.5}, by=policy.BY_HAND),
        policy.Policy(version=1, enabled=True, settings={"budget_usd_h": 2.5}, by=policy.BY_HAND),
        policy.Policy(version=1, enabled=False, by=policy.BY_HAND),
    ):
        assert "enabled" in switched.fixed
    assert policy.Policy(version=3, enabled=True, settings={"max_nodes": 3}, by=policy.BY_FLAGS).fixed == frozenset()


_FLAGS = st.dictionaries(st.sampled_from(["max_nodes", "min_nodes"]), st.integers(0, 20))
_BY_HAND = st.tuples(
    st.dictionaries(st.sampled_from(["max_nodes", "min_nodes", "budget_usd_h"]), st.integers(0, 20)),
    st.sampled_from([None, True, False]),
)


@given(st.lists(st.one_of(_FLAGS, _BY_HAND), max_size=6))
def test_flags_never_change_what_a_person_has_set(steps):
    now, fixed = policy.Policy(), dict[str, object]()
    for step in steps:
        try:
            if isinstance(step, tuple):
                now = policy.changed(now, step[0], step[1], policy.BY_HAND, "n1", NOW)
                fixed |= step[0] | ({} if step[1] is None else {"enabled": step[1]})
            else:
                now = policy.from_flags(now, step, "n1", NOW) or now
        except BadInput:
            continue  # flags or settings that contradict each other change nothing
        state = now.settings | {"enabled": now.enabled}
        assert {name: state.get(name) for name in fixed} == fixed
        policy.config_of(now)


@given(st.integers(0, 30), st.integers(0, 9), st.integers(0, 9), st.floats(NOW, NOW + 99))
def test_a_manual_target_replaces_the_bounds_until_it_expires(target, low, more, until):
    config = ScalingConfig(min_nodes=low, max_nodes=low + more)
    held, why = policy.effective(config, policy.ManualTarget(target=target, until=until), NOW)
    assert held.max_nodes <= config.max_nodes
    assert (held, why) == (config, "") if until <= NOW else held.min_nodes == held.max_nodes == min(target, low + more)


@given(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.sampled_from(["", "spot", "moon"]),
)
def test_a_forged_manual_target_holds_no_longer_than_one_that_was_set_and_never_breaks_the_settings(
    target, until, provider
):
    """The farthest time held the number of nodes for ever, and a negative number ended every cycle of the scaler."""
    forged = policy.ManualTarget(target=target, until=until, provider=provider)
    config = ScalingConfig(max_nodes=9)
    held, why = policy.effective(config, forged, NOW)
    offers = policy.allowed((Offer("o1", "spot"),), forged, NOW)
    if not NOW < until <= NOW + policy.MANUAL_MAX_S + 60 or not 0 <= target <= policy.MOST_NODES:
        assert (held, why, len(offers)) == (config, "", 1)
    else:
        assert held.max_nodes <= config.max_nodes and held.faults() == ScalingConfig().faults()


@given(st.floats(-1e9, 1e9), st.integers(0, 9))
def test_memory_of_another_clock_keeps_no_window_closed_for_ever(jump_s, failures):
    at = NOW + jump_s
    pool = PoolMemory(1, 1, ((at - 5, 3), (at, 2)), ((at, 2),), at, at, at)
    kept = clamp_to_clock(Memory({"cpu": pool}, {"o": Breaker(failures, at + 900)}), CONFIG, NOW)
    after = kept.pools["cpu"]
    assert (
        max(after.last_scale_in_at, after.last_work_at, after.last_peak_at, *(when for when, _ in after.max_needs))
        <= NOW
    )
    assert kept.breakers["o"].open_until <= NOW + 16 * CONFIG.breaker_s
    assert clamp_to_clock(kept, CONFIG, NOW) == kept


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 9)), max_size=20))
def test_spending_never_runs_backwards(steps):
    state, now = State(), NOW
    for passed_s, running in steps:
        before, now = state, now + passed_s
        state = add_spending(state, running, now)
        assert state.month_usd >= before.month_usd or state.month != before.month
        assert 0 <= state.spent_usd <= state.month_usd + 1e-9 or state.month != before.month
    assert add_spending(state, 5.0, now - 1e6).spent_usd >= 0


@given(INTENTS, MEMBERS)
def test_a_node_and_its_order_count_once(intents, members):
    """A node that runs and has an order is one node, whatever the state of the order."""
    counted = all_nodes(members, {intent.token: intent for intent in intents})
    alive = {member.record.labels[TOKEN_LABEL] for member in members if member.state in ("up", "draining")}
    assert len(counted) == len(alive | {intent.token for intent in intents}) == len({intent.id for intent in counted})


@given(INTENTS, MEMBERS, st.integers(0, 500), st.sampled_from(["up", "draining"]))
def test_an_observation_shows_every_node_and_marks_unmanaged_ones(intents, members, waiting, state):
    person = Member(NodeRecord(id="person", name="p", incarnation="1"), state, None)
    lanes = {("echo", "any", "normal"): (waiting, 0, 0)}
    facts = Facts(lanes, {}, {}, [*members, person], {intent.token: intent for intent in intents}, "person")
    (pool,) = observe(facts, ArrivalWindow(), ()).pools
    ids = [node.id for node in pool.nodes]
    assert len(ids) == len(set(ids)) and {member.record.id for member in members if member.state != "gone"} - {
        member.record.id for member in members if member.state == "left"
    } <= set(ids)
    mine = next(node for node in pool.nodes if node.id == "person")
    assert not mine.managed and mine.running == 1, "a node without a heartbeat may hold any work"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12))
def test_arrivals_are_counted_correctly_at_any_sampling(steps):
    """Delivered tasks that were waiting are no arrivals; a recreated lane does not count backwards."""
    lane = ("echo", "any", "normal")
    seen, came, waiting, delivered, now = ArrivalWindow(), 0, 0, 0, NOW
    seen = count_arrivals(seen, {lane: (0, 0, 0)}, math.inf, now)
    for new, requested in steps:
        taken = min(requested, waiting + new)
        came, delivered = came + new, delivered + taken
        waiting, now = waiting + new - taken, now + 1
        seen = count_arrivals(seen, {lane: (waiting, 0, delivered)}, math.inf, now)
    assert sum(arrival.tasks.get(lane, 0) for arrival in seen.arrivals) == came


def test_a_journaled_decision_is_replayed_and_a_forged_one_detected():
    pool = Pool("cpu", (Node("a"), Node("b", running=1)), 3.0, 0.9, 40, 0.5, demand_by_region={"eu": 1.0})
    inputs = record.Inputs(Observation((pool,)), {}, (Offer("local", "local"),), CONFIG, Memory(), NOW)
    made, _ = decide(inputs.observation, {}, inputs.offers, CONFIG, inputs.memory, NOW)
    written: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(record.document(made, inputs, 3, ["n"])))
    again, same = record.replay(written)
    assert same and again == made
    written["pools"][0]["target"] += 1
    assert not record.replay(written)[1]
    written["from"]["config"]["cpu_up"] = "high"
    with pytest.raises(BadInput, match="can't be replayed"):
        record.replay(written)
