"""Bus servers whose clocks differ raise an alarm that names them; those that agree, or don't say, raise none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.clocks import ALARM_S, alarms_of, times_of


def test_the_server_whose_clock_is_off_is_named() -> None:
    found = alarms_of({"n1~a": 1000.0, "n2~b": 4600.0, "n3~c": 1000.4}, {"n2": "office-7"})
    assert "office-7 is 3600 s ahead" in found["clocks"] and "n1" not in found["clocks"]
    assert "n3 is 50 s behind" in alarms_of({"n1~a": 100.0, "n2~b": 100.0, "n3~c": 50.0}, {})["clocks"]
    assert alarms_of({"n1~a": 1000.0}, {}) == {} == alarms_of({}, {})


@given(st.lists(st.floats(0, ALARM_S), min_size=2, max_size=5), st.floats(-1e9, 1e9))
def test_no_alarm_depends_on_the_clock_of_the_one_who_asks(offsets, shift_s) -> None:
    times = {f"n{number}~x": 1e9 + shift_s + offset for number, offset in enumerate(offsets)}
    assert alarms_of(times, {}) == {}


def test_what_servers_say() -> None:
    good = {"server": {"name": "n1~a", "time": "2026-11-29T20:00:00.5Z"}}
    assert times_of([good, {}, {"server": {"name": "n2~b"}}, {"server": {"name": "n3~c", "time": "noon"}}]) == {
        "n1~a": 1795982400.5
    }
