"""The repair of a group size that is smaller than the member list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.group_size import describe, is_too_small, repair


def test_the_repair_case_by_case() -> None:
    assert repair(3, 3, 3, spare=True) == "none" == repair(0, 3, 3, spare=True)
    assert repair(2, 3, 3, spare=True) == "add"
    assert repair(2, 3, 3, spare=False) == "none", "the quorum of two is right all the same"
    assert repair(2, 3, 2, spare=True) == "none", "the absent member returns or is replaced"
    assert repair(3, 5, 5, spare=True) == "add"
    assert repair(3, 5, 5, spare=False) == "remove", "two of five are a quorum"
    assert repair(3, 5, 4, spare=False) == "none"
    assert repair(3, 5, 2, spare=True) == "wait"
    assert describe("n1", 2, 3) == "n1 leads the bus servers with a group size of 2 for 3 members"
    assert describe("n1", 3, 3) == ""


@given(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_no_repair_loses_the_majority_or_lowers_the_quorum(size: int, members: int, current: int, spare: bool) -> None:
    current = min(current, members)
    found = repair(size, members, current, spare)
    if found == "add":
        assert spare and (current + 1) * 2 > members + 1
    if found == "remove":
        assert (current - 1) * 2 > members - 1
    if found in ("add", "remove"):
        after = members + (1 if found == "add" else -1)
        assert after // 2 + 1 >= size // 2 + 1, "a lower quorum than before"
    if not is_too_small(size, members):
        assert found == "none"
