"""Any video is split so that every shown frame is in one part, with all that its decoding needs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.splitting.video_index import Indexed, pieces_of
from mesh.splitting.video_plan import (
    MAX_FAILED_TRIALS,
    TRIAL_FRAMES,
    CannotCut,
    Piece,
    Planner,
    Shown,
    decode_times,
    expected_parts,
)


@dataclass(frozen=True)
class Coded:
    """One packet of a video; packets are in file order."""

    pts: int
    key: bool
    shown: bool = True
    """False for a packet that is only decoded, or the second field of a frame."""


@st.composite
def videos(draw, closed: bool = False) -> list[Coded]:
    """Open and closed groups of pictures, with frames whose decode order differs from the order of showing. `closed`:
    only closed groups, of which every frame is shown."""
    packets: list[Coded] = []
    at = draw(st.integers(-100, 1000))
    step = draw(st.integers(1, 100))
    hidden = 0 if closed else draw(st.integers(0, 3))
    fields = not closed and draw(st.booleans())
    for group in range(draw(st.integers(1, 8))):
        early = draw(st.integers(0, 3)) if group and not closed else 0
        size = draw(st.integers(1, 12))
        key = at + early * step
        leading = [Coded(at + number * step, key=False) for number in range(early)]
        trailing = [Coded(key + number * step, key=False) for number in range(1, size)]
        order = draw(st.permutations(trailing)) if len(trailing) < 5 else trailing
        packets += [Coded(key, key=True), *leading, *order]
        at = key + size * step
    first = packets[0].pts
    packets = [Coded(packet.pts, packet.key, shown=not (packet.pts - first) // step < hidden) for packet in packets]
    if fields:
        packets = [half for packet in packets for half in (packet, Coded(packet.pts, key=False, shown=False))]
    return packets


def split(packets: list[Coded], length: int, end: int | None = None, works=lambda shown: True) -> list[Piece]:
    """The parts, by a decoder that gives each frame once no packet that follows is shown before it."""
    planner, found = Planner(length, end), []
    waiting: list[Shown] = []

    def settle(due: bool) -> None:
        if due and works(planner.trial):
            found.append(planner.accept())
        elif due:
            planner.reject()

    for index, packet in enumerate(packets):
        assert planner.add_packet(packet.key, 10) == index
        if packet.shown:
            waiting.append(Shown(index, packet.pts))
        later = min((other.pts for other in packets[index + 1 :] if other.shown), default=None)
        waiting.sort(key=lambda frame: frame.time)
        while waiting and (later is None or waiting[0].time < later):
            frame = waiting.pop(0)
            settle(planner.add_frame(frame.packet, frame.time))
    settle(planner.candidate is not None)
    last = planner.last()
    return found if last is None else [*found, last]


@given(videos(), st.integers(1, 2000))
def test_every_frame_is_in_one_part_and_its_group_with_it(packets: list[Coded], length: int) -> None:
    found = split(packets, length)
    shown = sorted(packet.pts for packet in packets if packet.shown)
    assert list(itertools.chain.from_iterable(piece.times for piece in found)) == shown
    assert [piece.number for piece in found] == list(range(len(found)))
    for piece in found:
        assert piece.times and (packets[piece.start].key or not piece.number)
        for frame in piece.shown:
            assert piece.start <= frame.packet < piece.stop, "a frame's packet is missing"
            assert packets[frame.packet].pts == frame.time
            second = frame.packet + 1
            if second < len(packets) and packets[second] == Coded(frame.time, key=False, shown=False):
                assert second < piece.stop, "a frame's second field is missing"
            group = max(index for index, packet in enumerate(packets) if packet.key and index <= frame.packet)
            # The part has the key frame of its group, and the one before when the frame precedes its own key frame.
            assert piece.start <= group < piece.stop
            assert packets[group].pts <= frame.time or group > piece.start or not piece.number
    for earlier, following in itertools.pairwise(found):
        assert earlier.times[-1] < following.first and following.first - earlier.first >= min(length, 1)


@given(videos(), st.integers(1, 2000))
def test_parts_are_as_long_as_key_frames_allow(packets: list[Coded], length: int) -> None:
    end = max(packet.pts for packet in packets)
    found = split(packets, length, end)
    assert all(after.first - before.first >= length for before, after in itertools.pairwise(found))
    assert len(found) < 2 or end - found[-1].first >= length // 2


@given(videos(), st.integers(1, 500), st.data())
def test_no_part_begins_where_the_trial_failed(packets: list[Coded], length: int, data: st.DataObject) -> None:
    bad = {index for index, packet in enumerate(packets) if packet.key and data.draw(st.booleans())}
    found = split(packets, length, works=lambda trial: trial[0].packet not in bad)
    shown = sorted(packet.pts for packet in packets if packet.shown)
    assert list(itertools.chain.from_iterable(piece.times for piece in found)) == shown
    assert not bad & {piece.start for piece in found[1:]}


def test_a_video_whose_key_frames_all_fail_is_given_up() -> None:
    packets = [Coded(number, key=True) for number in range(MAX_FAILED_TRIALS * 20)]
    with pytest.raises(CannotCut, match="does not give its pictures"):
        split(packets, 2, works=lambda trial: False)


def test_a_part_that_is_too_large_is_given_up() -> None:
    planner = Planner(10)
    with pytest.raises(CannotCut, match="no place to cut within 512 MB"):
        for _ in range(6):
            planner.add_packet(False, 100_000_000)


@given(st.integers(1, 200), st.integers(TRIAL_FRAMES, 50))
def test_the_expected_number_of_parts_is_that_of_closed_groups(frames: int, length: int) -> None:
    found = split([Coded(time, key=True) for time in range(frames)], length, frames - 1)
    assert expected_parts(range(frames), length, frames - 1) == len(found)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60, unique=True), st.integers(1, 50))
def test_decode_times_rise_and_come_before_showing(shown: list[int], step: int) -> None:
    times = decode_times(shown, step)
    assert len(times) == len(shown)
    assert all(before < after for before, after in itertools.pairwise(times))
    assert all(decoded <= seen for decoded, seen in zip(times, shown, strict=True))
    if sorted(shown) == shown:
        assert times == shown


def test_nothing_can_be_cut_without_a_key_frame() -> None:
    assert len(split([Coded(number, False) for number in range(50)], 10)) == 1


@given(videos(), st.integers(1, 2000), st.booleans())
def test_packets_alone_give_a_plan_in_which_no_part_needs_another(
    packets: list[Coded], length: int, ends: bool
) -> None:
    end = max(packet.pts for packet in packets) if ends else None
    found = pieces_of([Indexed(packet.pts, 10, packet.key) for packet in packets], length, end)
    fields = len({packet.pts for packet in packets}) < len(packets)
    if fields or packets[0].pts != min(packet.pts for packet in packets):
        assert found is None
        return
    assert found is not None and [piece.number for piece in found] == list(range(len(found)))
    assert [piece.start for piece in found] == [0, *(piece.stop for piece in found[:-1])]
    assert found[-1].stop == len(packets)
    for piece in found:
        own = packets[piece.start : piece.stop]
        assert own[0].key and own[0].pts == piece.first == min(packet.pts for packet in own)
        assert piece.times == tuple(sorted(packet.pts for packet in own))
        assert all(packets[frame.packet].pts == frame.time for frame in piece.shown)
    for earlier, following in itertools.pairwise(found):
        assert earlier.times[-1] < following.first and following.first - earlier.first >= length


@given(videos(closed=True), st.integers(1, 2000), st.booleans())
def test_the_plan_of_closed_groups_is_that_of_a_decoder(packets: list[Coded], length: int, ends: bool) -> None:
    end = max(packet.pts for packet in packets) if ends else None
    found = pieces_of([Indexed(packet.pts, 10, packet.key) for packet in packets], length, end)
    assert found == tuple(split(packets, length, end))


@given(st.lists(st.integers(0, 40), max_size=12), st.data())
def test_times_in_any_order_give_a_plan_of_all_packets_or_none(times: list[int], data: st.DataObject) -> None:
    anew = [data.draw(st.booleans()) for _ in times]
    found = pieces_of([Indexed(time, 1, start) for time, start in zip(times, anew, strict=True)], 3, None)
    if found is not None:
        assert list(itertools.chain.from_iterable(piece.times for piece in found)) == sorted(times)
        assert all(anew[piece.start] for piece in found)
