"""Scheduled capacity: rules such as "weekdays 8 to 18, at least 5". Pure.

A rule names days, hours and a number of nodes. Hours are of the scaler's time zone, from the first up to but not
including the last; "22 to 6" goes over midnight and belongs to the day it begins on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NAMED = {"weekdays": range(5), "weekends": range(5, 7), "daily": range(7), "every day": range(7)}
_RULE = re.compile(
    r"\s*(?P<days>[a-z][a-z ,-]*?)\s+(?P<first>\d{1,2}(?::\d\d)?)\s*(?:to|-)\s*(?P<last>\d{1,2}(?::\d\d)?)\s*,?"
    r"\s*at least\s+(?P<nodes>\d+)\s*(?:nodes?)?\s*",
    re.IGNORECASE,
)
EXAMPLE = '"weekdays 8 to 18, at least 5"'


@dataclass(frozen=True, slots=True)
class Rule:
    """At least `nodes` on `days` (0 is Monday), from minute `first` of the day to minute `last`."""

    text: str
    days: frozenset[int]
    first: int
    last: int
    nodes: int


@cache
def parse_rule(text: str) -> Rule:
    """The rule that `text` states. Raises: ValueError, with one sentence that says what is wrong."""
    match = _RULE.fullmatch(text)
    if not match:
        raise ValueError(f'"{text}" is not a rule: write it like {EXAMPLE}')
    first, last = _minute(match["first"], text), _minute(match["last"], text)
    if first == last:
        raise ValueError(f'"{text}" begins and ends at the same time: for the whole day write 0 to 24')
    return Rule(text, _days(match["days"].lower(), text), first, last, int(match["nodes"]))


def problems(rules: Iterable[str], timezone: str) -> list[tuple[str, str]]:
    """What is wrong with these rules and their time zone: (the setting, schedule or timezone; a sentence) each."""
    found: list[tuple[str, str]] = []
    checks = [*(("schedule", parse_rule, rule) for rule in rules), ("timezone", time_zone, timezone)]
    for setting, check, text in checks:
        try:
            check(text)
        except ValueError as error:
            found.append((setting, str(error)))
    return found


def scheduled_nodes(rules: Iterable[str], timezone: str, now: float, lead_s: float = 0.0) -> tuple[int, str]:
    """(nodes required now or `lead_s` from now, the rule that requires them); (0, "") when no rule is in force.

    The lead is the time that nodes take to start, so that they are ready when the hour begins.
    """
    most, why = 0, ""
    for text in rules:
        rule = parse_rule(text)
        if rule.nodes > most and (_is_in_force(rule, timezone, now) or _is_in_force(rule, timezone, now + lead_s)):
            most, why = rule.nodes, text
    return most, why


def _is_in_force(rule: Rule, timezone: str, at: float) -> bool:
    local = datetime.fromtimestamp(at, time_zone(timezone))
    minute, day = local.hour * 60 + local.minute, local.weekday()
    if rule.first < rule.last:
        return day in rule.days and rule.first <= minute < rule.last
    yesterday = (local - timedelta(days=1)).weekday()
    return (day in rule.days and minute >= rule.first) or (yesterday in rule.days and minute < rule.last)


@cache
def time_zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises: ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'"{name}" is not a time zone: write one like Europe/Berlin, or UTC') from error


def _minute(text: str, rule: str) -> int:
    hour, _, minute = text.partition(":")
    minutes = int(hour) * 60 + int(minute or 0)
    if minutes > 24 * 60 or int(minute or 0) > 59:
        raise ValueError(f'"{rule}": {text} is no time of day')
    return minutes


def _days(text: str, rule: str) -> frozenset[int]:
    if text in _NAMED:
        return frozenset(_NAMED[text])
    days: set[int] = set()
    for part in re.split(r"\s*,\s*|\s+and\s+", text):
        ends = [_day(name, rule) for name in re.split(r"\s*-\s*|\s+to\s+", part)]
        if len(ends) > 2:
            raise ValueError(f'"{rule}": "{part}" is no range of days, it names more than two')
        days |= {(ends[0] + offset) % 7 for offset in range((ends[-1] - ends[0]) % 7 + 1)}
    return frozenset(days)


def _day(name: str, rule: str) -> int:
    matches = [number for number, day in enumerate(_DAYS) if len(name) >= 3 and day.startswith(name.rstrip("s"))]
    if len(matches) != 1:
        raise ValueError(f'"{rule}": "{name}" is no day; write weekdays, weekends, daily, or days such as mon-fri')
    return matches[0]
