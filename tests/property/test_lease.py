"""A simulation of several contenders for one compare-and-set key, each with a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.config import LAN
from mesh.leader import lease
from tests.examples import examples


@dataclass
class Key:
    """The lease key on the bus."""

    revision: int = 0
    node: str = ""
    top: int = 0

    def write(self, node: str, last: int) -> int | None:
        if last != self.revision:
            return None
        self.top += 1
        self.revision, self.node = self.top, node
        return self.top


@dataclass
class Contender:
    """One node: its clock is the simulated time plus an offset."""

    name: str
    offset: float
    seen: lease.LeaseObservation = field(default_factory=lease.LeaseObservation)
    term: lease.Term | None = None

    def look(self, key: Key, world: float, answered: bool) -> None:
        now = world + self.offset
        self.seen = lease.observe(self.seen, key.revision, key.node, key.node and f"{key.node}-1", now)
        action = lease.decide(self.seen, self.term, (self.name, f"{self.name}-1"), False, LAN, now)
        if isinstance(action, lease.StepDown):
            self.term = None
        elif not isinstance(action, lease.StandBy):
            last = 0 if isinstance(action, lease.Create) else action.revision
            revision = key.write(self.name, last)
            if revision is None or not answered:
                return
            renews = isinstance(action, lease.Renew) and self.term is not None
            self.term = lease.Term(self.term.fence if renews else revision, revision, now)

    def is_leader(self, world: float) -> bool:
        return lease.is_held(self.term, LAN, world + self.offset)


STEP = st.tuples(st.integers(0, 2), st.floats(0.01, 6.0), st.sampled_from([True, True, True, False]))


@settings(max_examples=examples(200))
@given(st.lists(STEP, max_size=80), st.lists(st.floats(-1e5, 1e5), min_size=3, max_size=3))
def test_never_two_leaders_and_fences_only_rise(steps, offsets) -> None:
    key, world, highest = Key(), 1e6, 0
    nodes = [Contender(name, offset) for name, offset in zip("abc", offsets, strict=True)]
    for who, passes_s, answered in steps:
        world += passes_s
        before = nodes[who].term
        nodes[who].look(key, world, answered)
        leaders = [node for node in nodes if node.is_leader(world)]
        assert len(leaders) <= 1
        term = nodes[who].term
        if term is not None and (before is None or before.fence != term.fence):
            assert term.fence > highest
            highest = term.fence


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_a_silent_holder_keeps_the_lease_for_the_whole_ttl(since: float, waited_s: float) -> None:
    seen = lease.LeaseObservation(5, "other", "other-1", since)
    now = since + waited_s
    action = lease.decide(seen, None, ("me", "me-1"), False, LAN, now)
    if now > since + LAN.lease_ttl_s:
        assert isinstance(action, lease.TakeOver) and action.revision == 5
    else:
        assert isinstance(action, lease.StandBy)
        assert now <= action.until <= since + LAN.lease_ttl_s


@given(st.floats(0, 30))
def test_a_holder_steps_down_before_any_node_may_take_over(silent_s: float) -> None:
    term = lease.Term(fence=3, revision=4, renewed_at=100.0)
    now = 100.0 + silent_s
    seen = lease.LeaseObservation(4, "me", "me-1", 100.0)
    action = lease.decide(seen, term, ("me", "me-1"), False, LAN, now)
    assert isinstance(action, lease.StepDown) == (silent_s >= LAN.lease_ttl_s * 2 / 3)
    assert lease.is_held(term, LAN, now) != isinstance(action, lease.StepDown)
