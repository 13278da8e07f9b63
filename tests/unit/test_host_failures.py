"""Which nodes are asked to host a bus server again, and when."""

from __future__ import annotations

from mesh.cluster.host_failures import RETRY_AFTER_S, HostFailures


def test_a_server_that_ended_by_order_is_no_failure() -> None:
    """One of three machines restarts in order: the others shrink to one server, and grow again when it is back."""
    failures = HostFailures()
    failures.saw_members(["n1", "n2~a", "n3~b"])
    failures.stopped("n2", "n2~a", now=100.0)
    assert failures.is_willing("n2", now=100.0)


def test_a_newcomer_that_never_joined_is_a_failure() -> None:
    failures = HostFailures()
    failures.saw_members(["n1"])
    failures.stopped("n2", "n2~a", now=100.0)
    assert not failures.is_willing("n2", now=100.0 + RETRY_AFTER_S)
    assert failures.is_willing("n2", now=100.1 + RETRY_AFTER_S)


def test_a_node_that_refuses_is_a_failure_whatever_it_hosted() -> None:
    failures = HostFailures()
    failures.saw_members(["n2~a"])
    failures.failed("n2", now=5.0)
    assert not failures.is_willing("n2", now=6.0) and failures.is_willing("n3", now=6.0)


def test_a_second_membership_counts_anew() -> None:
    failures = HostFailures()
    failures.saw_members(["n2~a"])
    failures.stopped("n2", "n2~a", now=1.0)
    failures.stopped("n2", "n2~a", now=2.0)
    assert not failures.is_willing("n2", now=3.0)
