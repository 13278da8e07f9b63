"""Any video is split so that every shown frame is in one part, with all that its decoding needs."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mesh.splitting.video_plan import Coded, decode_times, pieces


@st.composite
def videos(draw) -> list[Coded]:
    """Open and closed groups of pictures, with frames whose decode order differs from the order of showing."""
    packets: list[Coded] = []
    at = draw(st.integers(-100, 1000))
    step = draw(st.integers(1, 100))
    hidden = draw(st.integers(0, 3))
    for group in range(draw(st.integers(1, 8))):
        early = draw(st.integers(0, 3)) if group else 0
        size = draw(st.integers(1, 12))
        key = at + early * step
        leading = [Coded(at + number * step, key=False) for number in range(early)]
        trailing = [Coded(key + number * step, key=False) for number in range(1, size)]
        order = draw(st.permutations(trailing)) if len(trailing) < 5 else trailing
        packets += [Coded(key, key=True), *leading, *order]
        at = key + size * step
    return [
        Coded(packet.pts, packet.key, shown=not (packet.pts - packets[0].pts) // step < hidden) for packet in packets
    ]


@given(videos(), st.integers(1, 2000))
def test_every_frame_is_in_one_part_and_its_group_with_it(packets: list[Coded], length: int) -> None:
    found = pieces(packets, length)
    shown = sorted(packet.pts for packet in packets if packet.shown)
    assert list(itertools.chain.from_iterable(piece.times for piece in found)) == shown
    for piece in found:
        assert packets[piece.start].key and piece.times
        inside = {packet.pts for packet in packets[piece.start : piece.stop]}
        assert inside >= set(piece.times), "a frame's packet is missing"
        for pts in piece.times:
            group = max(index for index, packet in enumerate(packets) if packet.key and index <= _index(packets, pts))
            # The part has the key frame of its group, and the one before when the frame precedes its own key frame.
            assert piece.start <= group < piece.stop
            assert packets[group].pts <= pts or group > piece.start
        counted = [pts for pts in inside if piece.first <= pts < piece.end and _shown(packets, pts)]
        assert sorted(counted) == list(piece.times)
    for earlier, following in itertools.pairwise(found):
        assert earlier.end <= following.first and following.first - earlier.first >= min(length, 1)


def _index(packets: list[Coded], pts: int) -> int:
    return next(index for index, packet in enumerate(packets) if packet.pts == pts)


def _shown(packets: list[Coded], pts: int) -> bool:
    return packets[_index(packets, pts)].shown


@given(videos(), st.integers(1, 2000))
def test_parts_are_as_long_as_key_frames_allow(packets: list[Coded], length: int) -> None:
    starts = [packets[piece.start].pts for piece in pieces(packets, length)]
    assert all(after - before >= length for before, after in itertools.pairwise(starts))


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60, unique=True), st.integers(1, 50))
def test_decode_times_rise_and_come_before_showing(shown: list[int], step: int) -> None:
    times = decode_times(shown, step)
    assert len(times) == len(shown)
    assert all(before < after for before, after in itertools.pairwise(times))
    assert all(decoded <= seen for decoded, seen in zip(times, shown, strict=True))
    if sorted(shown) == shown:
        assert times == shown


def test_nothing_can_be_cut_without_a_key_frame() -> None:
    assert pieces([Coded(0, False), Coded(1, False)], 10) == []
