"""The decisions about the lease, case by case."""

from __future__ import annotations

import pytest

from mesh.config import LAN
from mesh.leader import lease

ME = ("me", "me-1")
TERM = lease.Term(fence=3, revision=5, renewed_at=100.0)


@pytest.mark.parametrize(
    ("seen", "term", "gone", "now", "expected"),
    [
        (lease.LeaseObservation(), None, False, 100.0, lease.Create),
        (lease.LeaseObservation(9, "", "", 99.0), None, False, 100.0, lease.Create),
        (lease.LeaseObservation(9, "other", "o-1", 99.0), None, False, 100.0, lease.StandBy),
        (lease.LeaseObservation(9, "other", "o-1", 99.0), None, True, 100.0, lease.TakeOver),
        (lease.LeaseObservation(9, "other", "o-1", 89.9), None, False, 100.0, lease.TakeOver),
        (lease.LeaseObservation(9, "me", "me-1", 99.0), None, False, 100.0, lease.TakeOver),
        (lease.LeaseObservation(9, "me", "me-0", 99.0), None, False, 100.0, lease.StandBy),
        (lease.LeaseObservation(5, *ME, 100.0), TERM, False, 101.0, lease.StandBy),
        (lease.LeaseObservation(5, *ME, 100.0), TERM, False, 102.0, lease.Renew),
        (lease.LeaseObservation(5, *ME, 100.0), TERM, False, 107.0, lease.StepDown),
        (lease.LeaseObservation(6, "other", "o-1", 101.0), TERM, False, 101.0, lease.StepDown),
        (lease.LeaseObservation(0, "", "", 101.0), TERM, False, 101.0, lease.StepDown),
        # Read before the own last write: an old observation is ignored.
        (lease.LeaseObservation(4, "other", "o-1", 99.0), TERM, False, 101.0, lease.StandBy),
    ],
)
def test_rules(seen, term, gone, now, expected) -> None:
    assert isinstance(lease.decide(seen, term, ME, gone, LAN, now), expected)


def test_a_renewal_whose_answer_was_lost_continues_from_the_stored_revision() -> None:
    action = lease.decide(lease.LeaseObservation(7, *ME, 101.0), TERM, ME, False, LAN, 102.5)
    assert action == lease.Renew(7)


def test_staleness_counts_from_the_first_sight_of_a_revision() -> None:
    first = lease.observe(lease.LeaseObservation(), 4, "other", "o-1", 10.0)
    assert lease.observe(first, 4, "other", "o-1", 15.0).since == 10.0
    assert lease.observe(first, 5, "other", "o-1", 15.0).since == 15.0
