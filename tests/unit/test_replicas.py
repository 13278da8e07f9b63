"""Whether a copy is complete: one that the servers call current also needs the last message of the stream."""

from __future__ import annotations

from mesh.cluster.replicas import Replicas, read_held
from mesh.cluster.topology import Stream

ALL = frozenset("abc")
WORK = Stream("WORK", 3, "a", ALL, ALL)


def jsz(server: str, last: int) -> dict[str, object]:
    """The answer of nats-server 2.15.1 about the streams of one account, with only the fields that are read."""
    detail = {"name": "MESH", "stream_detail": [{"name": "WORK", "state": {"last_seq": last}}]}
    return {"server": {"name": server}, "data": {"account_details": [detail]}}


def test_the_streams_of_each_server_are_read_and_a_witness_has_none() -> None:
    answers = [jsz("a", 200), jsz("b", 0), {"server": {"name": "a-witness"}, "error": {"code": 503}}]
    assert read_held(answers) == {"WORK": {"a": 200, "b": 0}}


def test_a_copy_that_is_called_current_and_is_empty_does_not_count() -> None:
    now = 100.0
    copies = Replicas(lambda: now)
    (seen,) = copies.judge([WORK], {"WORK": {"a": 200, "b": 0, "c": 200}})
    assert (seen.current, seen.members, seen.behind_s) == ({"a", "c"}, ALL, 0.0)
    now = 107.0
    assert copies.judge([WORK], {"WORK": {"a": 200, "b": 150, "c": 200}})[0].behind_s == 7.0
    (seen,) = copies.judge([WORK], {"WORK": {"a": 200, "b": 200, "c": 200}})
    assert (seen.current, seen.behind_s) == (ALL, 0.0)
    now = 109.0
    assert copies.judge([WORK], {"WORK": {"a": 200, "b": 150, "c": 200}})[0].behind_s == 0.0, "counted anew"


def test_a_busy_stream_that_grew_between_two_answers_is_complete() -> None:
    copies = Replicas()
    copies.judge([WORK], {"WORK": {"a": 200, "b": 200, "c": 200}})
    assert copies.judge([WORK], {"WORK": {"a": 300, "b": 250, "c": 201}})[0].current == ALL
    assert copies.judge([WORK], {"WORK": {"a": 400, "b": 300, "c": 299}})[0].current == {"a", "b"}


def test_a_server_that_did_not_answer_has_no_current_copy() -> None:
    copies = Replicas()
    copies.judge([WORK], {"WORK": {"a": 200, "b": 200, "c": 200}})
    assert copies.judge([WORK], {"WORK": {"a": 200, "b": 200}})[0].current == {"a", "b"}
    assert copies.judge([WORK], {"WORK": {"b": 200, "c": 200}})[0].current == {"a"}, "its leader's server is silent"
    assert copies.judge([WORK], {})[0].current == {"a"}
    silent = Stream("WORK", 0, "", frozenset(), frozenset())
    assert copies.judge([silent], {})[0] == silent


def test_a_lagging_raft_log_is_no_copy_whatever_it_holds() -> None:
    lagging = Stream("WORK", 3, "a", frozenset("ab"), ALL)
    assert Replicas().judge([lagging], {"WORK": {"a": 9, "b": 9, "c": 9}})[0].current == {"a", "b"}


def test_a_recreated_stream_is_not_compared_with_the_old_one() -> None:
    copies = Replicas()
    copies.judge([WORK], {"WORK": {"a": 500, "b": 500, "c": 500}})
    assert copies.judge([WORK], {"WORK": {"a": 3, "b": 3, "c": 3}})[0].current == ALL
