"""Which nodes are asked to host a bus server again, and when."""

from __future__ import annotations

from mesh.cluster.host_failures import RETRY_AFTER_S, HostFailures


def test_a_server_that_ended_by_order_is_no_failure() -> None:
    """One of three machines restarts in order: the others shrink to one server, and grow again when it is back."""
    failures = HostFailures(start_s=30.0)
    failures.observe(["n1", "n2~a", "n3~b"], ())
    failures.stopped("n2", "n2~a", now=100.0)
    assert failures.is_willing("n2", now=100.0)


def test_a_newcomer_that_never_joined_is_a_failure() -> None:
    failures = HostFailures(start_s=30.0)
    failures.observe(["n1"], ())
    failures.stopped("n2", "n2~a", now=100.0)
    assert not failures.is_willing("n2", now=100.0 + RETRY_AFTER_S)
    assert failures.is_willing("n2", now=100.1 + RETRY_AFTER_S)


def test_a_node_that_refuses_is_a_failure_whatever_it_hosted() -> None:
    failures = HostFailures(start_s=30.0)
    failures.observe(["n2~a"], ())
    failures.failed("n2", now=5.0)
    assert not failures.is_willing("n2", now=6.0) and failures.is_willing("n3", now=6.0)


def test_a_second_membership_counts_anew() -> None:
    failures = HostFailures(start_s=30.0)
    failures.observe(["n2~a"], ())
    failures.stopped("n2", "n2~a", now=1.0)
    failures.stopped("n2", "n2~a", now=2.0)
    assert not failures.is_willing("n2", now=3.0)


def test_a_node_that_is_asked_again_while_it_starts_its_server_has_not_failed() -> None:
    """Its record comes seconds after its answer. The second request counted as a failure, and a mesh of three machines
    shrank to one server, because the third had "failed"."""
    failures = HostFailures(start_s=30.0)
    for second in range(5):
        failures.began("n3", now=float(second))
        assert failures.is_starting("n3", now=float(second)) and failures.is_willing("n3", now=float(second))
    failures.observe((), ["n3"])
    assert not failures.is_starting("n3", now=100.0) and failures.is_willing("n3", now=100.0)


def test_a_server_that_was_taken_out_is_not_taken_for_one_that_joins() -> None:
    failures = HostFailures(start_s=30.0)
    failures.observe(["n3~a"], ["n3"])
    assert not failures.was_removed("n3~a")
    failures.removed("n3~a")
    assert failures.was_removed("n3~a") and not failures.was_removed("n3~b")


def test_a_node_that_never_records_its_server_has_failed() -> None:
    failures = HostFailures(start_s=30.0)
    failures.began("n3", now=0.0)
    failures.began("n3", now=20.0)
    assert not failures.is_starting("n3", now=30.1) and not failures.is_willing("n3", now=30.1)
