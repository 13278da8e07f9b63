"""The mended clock of a joined recording goes on without a jump, and sound and picture stay together."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.splitting.clock_jumps import BACK, FORWARD, TICKS, Clock

PICTURE, SOUND = 3600, 1920
"""The durations of their packets, ticks."""


def _section(begins: int, seconds: float, lead: int) -> list[tuple[int, int, int]]:
    """(stream, time, duration) of the packets of one recording in the order of the file; the sound begins `lead` ticks
    after the pictures."""
    length = round(seconds * TICKS)
    packets = [(0, begins + at, PICTURE) for at in range(0, length, PICTURE)]
    packets += [(1, begins + lead + at, SOUND) for at in range(0, length, SOUND)]
    return sorted(packets, key=lambda packet: packet[1])


far_jumps = st.integers(-(2**33), 2**33).filter(lambda jump: not -10 * TICKS < jump < 40 * TICKS)
sections = st.lists(
    st.tuples(far_jumps, st.floats(0.5, 4), st.integers(-TICKS // 2, TICKS // 2)), min_size=1, max_size=4
)


@given(sections, st.integers(0, 3))
def test_joined_recordings_go_on_where_the_one_before_ended(parts: list[tuple[int, float, int]], late: int) -> None:
    """`late`: the last packets of a stream follow the first ones of the next recording, as PES packets of sound do."""
    begins, packets, shares = 0, [], []
    for number, (jump, seconds, lead) in enumerate(parts):
        section = _section(begins, seconds, lead)
        overtaken = late and section[0][0] == 0  # within a stream, packets keep their order
        tail = [packet for packet in packets[-late:] if packet[1][0] == 1] if overtaken else []
        packets = [packet for packet in packets if packet not in tail]
        packets += [(number, section[0]), *tail, *((number, packet) for packet in section[1:])]
        begins += jump
        shares.append(lead)
    clock = Clock()
    shifts: dict[tuple[int, int], set[int]] = {}
    times: dict[int, list[int]] = {0: [], 1: []}
    for number, (stream, time, duration) in packets:
        shift = clock.shift(stream, time, duration)
        shifts.setdefault((number, stream), set()).add(shift)
        times[stream].append(time + shift)
    assert all(len(found) == 1 for found in shifts.values()), "one shift for a section of a stream"
    for number in range(len(parts)):
        assert shifts[number, 0] == shifts[number, 1], "sound and picture stay together"
    assert len(clock.jumps) == len(parts) - 1
    for found in times.values():
        assert all(-TICKS <= later - time <= 2 * TICKS for time, later in pairwise(found))


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-BACK, FORWARD)), max_size=60),
    st.integers(-(2**33), 2**33),
)
def test_gaps_and_small_steps_back_are_left_alone(steps: list[tuple[int, int]], begins: int) -> None:
    """Lost packets leave a gap, in which the last picture stands still."""
    clock, latest = Clock(), {0: begins, 1: begins}
    # Both have begun: how far a stream that begins late is behind the other one says nothing about its own steps.
    for stream, step in [(0, 0), (1, 0), *steps]:
        time = latest[stream] + step
        assert clock.shift(stream, time, 0) == 0
        latest[stream] = time
    assert not clock.jumps


def test_a_clock_that_wraps_goes_on() -> None:
    clock = Clock()
    assert clock.shift(0, 2**33 - 3600, 3600) == 0
    assert clock.shift(0, 0, 3600) == 2**33
    assert clock.current(5) == clock.current(0) == 2**33
