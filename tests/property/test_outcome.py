"""However its attempts end, a task ends once, within its attempts, and is never retried without a chance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.config import LAN
from mesh.messages import TaskError
from mesh.task_states import FINAL
from node.work.outcome import LOST_LIMIT, Attempt, End, Retry, backoff_s, decide, lost_too_often

FINAL_CODES = frozenset({"bad_input", "unknown_kind", "cancelled", "expired", "poison", "blob_missing"})
CODES = st.sampled_from(["failed", "crashed", "timeout", "memory", *sorted(FINAL_CODES)])
NODES = st.sampled_from(["n1", "n2", "n3"])


def error(code: str) -> TaskError:
    return TaskError(code, f"it was {code}", retryable=code not in FINAL_CODES)


@given(st.integers(1, 8), st.lists(st.tuples(st.one_of(st.none(), CODES), NODES), min_size=8, max_size=8))
def test_a_task_ends_within_its_attempts(most, story) -> None:
    attempt = Attempt(1, most)
    for count, (code, node) in enumerate(story, 1):
        decision = decide(attempt, error(code) if code else None, node, LAN)
        if isinstance(decision, End):
            assert decision.state in FINAL and count <= most
            assert (decision.error is None) == (decision.state == "done")
            return
        assert decision.next_attempt == attempt.number + 1 <= most
        assert 0 < decision.delay_s <= LAN.retry_max_s
        assert set(attempt.crashed_on) <= set(decision.crashed_on)
        attempt = Attempt(decision.next_attempt, most, decision.crashed_on)
    raise AssertionError("it never ended")


@given(st.sampled_from(sorted(FINAL_CODES)), st.integers(1, 5), NODES)
def test_an_error_that_another_attempt_cannot_fix_is_not_retried(code, number, node) -> None:
    decision = decide(Attempt(number, 100), error(code), node, LAN)
    assert isinstance(decision, End) and not decision.dead_letter
    assert decision.state == {"cancelled": "cancelled", "expired": "expired"}.get(code, "failed")
    assert decision.error == error(code)


@given(st.integers(1, 5), st.sampled_from(["failed", "bad_input", "unknown_kind"]), NODES, st.booleans())
def test_a_failure_that_its_worker_calls_certain_is_not_retried(number, code, node, elsewhere) -> None:
    certain = TaskError(code, "the loss is not a number")
    assert decide(Attempt(number, 100), certain, node, LAN, elsewhere) == End("failed", certain)


@given(st.integers(1, 5), NODES, st.booleans())
def test_what_a_node_lacks_is_tried_again_only_where_another_node_could_have_it(number, node, elsewhere) -> None:
    lacking = TaskError("unavailable", "This node can't run it: it has no such model", retryable=True)
    decision = decide(Attempt(number, 100), lacking, node, LAN, elsewhere)
    if elsewhere:
        assert isinstance(decision, Retry) and decision.next_attempt == number + 1
    else:
        assert decision == End("failed", lacking, dead_letter=True)


@given(st.lists(NODES, min_size=1, max_size=6))
def test_a_crash_on_two_different_nodes_makes_a_task_poison(nodes) -> None:
    attempt, seen = Attempt(1, 100), set()
    for node in nodes:
        seen.add(node)
        decision = decide(attempt, error("crashed"), node, LAN)
        if len(seen) >= 2:
            assert isinstance(decision, End) and decision.dead_letter and decision.state == "failed"
            assert decision.error.code == "poison" and all(name in decision.error.message for name in seen)
            return
        assert isinstance(decision, Retry) and decision.crashed_on == (node,)
        attempt = Attempt(decision.next_attempt, 100, decision.crashed_on)


@given(st.integers(1, 100), st.sampled_from(["failed", "timeout", "memory", "crashed"]))
def test_the_last_attempt_leaves_a_dead_letter(most, code) -> None:
    decision = decide(Attempt(most, most), error(code), "n1", LAN)
    assert decision == End("failed", error(code), dead_letter=True)


@given(st.integers(1, 100))
def test_back_off_doubles_up_to_its_bound(failed) -> None:
    assert LAN.retry_base_s == backoff_s(1, LAN) <= backoff_s(failed, LAN)
    assert backoff_s(failed + 1, LAN) == min(2 * backoff_s(failed, LAN), LAN.retry_max_s)


@given(st.integers(0, 50))
def test_a_task_whose_nodes_keep_dying_ends(lost) -> None:
    over = lost_too_often(Attempt(lost=lost))
    assert (over is not None) == (lost >= LOST_LIMIT)
    assert over is None or (over.state == "failed" and over.dead_letter and over.error.code == "poison")
