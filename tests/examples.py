"""How many examples a property is tried with when the suite tries more, or fewer, than the usual 100."""

from __future__ import annotations

from hypothesis import settings


def examples(in_the_suite: int) -> int:
    """`in_the_suite` in the suite's profile, and the same share of the examples of any other one."""
    return max(1, settings().max_examples * in_the_suite // 100)
