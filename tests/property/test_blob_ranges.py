"""Parts of blobs: what a Range header means, and where a chunk is found, for every way in which uploads interleave."""

from __future__ import annotations

import asyncio
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.compression import accepts_gzip
from api.http.streaming import requested_range
from mesh.bus.blob_ranges import Place, find_chunk


@given(
    gaps=st.lists(st.one_of(st.just(1), st.integers(1, 40), st.integers(1, 5000)), min_size=2, max_size=60),
    data=st.data(),
)
def test_any_chunk_is_found_wherever_other_uploads_put_theirs(gaps, data) -> None:
    sequences = [7]
    for gap in gaps:
        sequences.append(sequences[-1] + gap)
    number = data.draw(st.integers(0, len(sequences) - 1))
    probes = 0

    async def probe(sequence: int) -> Place:
        nonlocal probes
        probes += 1
        found = next(index for index, stored in enumerate(sequences) if stored >= sequence)
        return Place(sequences[found], found)

    first, last = Place(sequences[0], 0), Place(sequences[-1], len(sequences) - 1)
    assert asyncio.run(find_chunk(probe, number, first, last)) == Place(sequences[number], number)
    assert probes <= 2 * log2(sequences[-1] - sequences[0] + 1) + 2
    if set(gaps) == {1}:
        assert probes <= 1


@given(first=st.integers(0, 300), last=st.integers(0, 300), size=st.integers(1, 200))
def test_a_range_is_the_bytes_that_the_rfc_says(first: int, last: int, size: int) -> None:
    data = bytes(range(size))

    def part(header: str) -> bytes | None:
        found = requested_range(header, size)
        return data[found[0] : sum(found)] if found else None

    if last < first:
        assert part(f"bytes={first}-{last}") is None
    elif first >= size:
        with pytest.raises(ValueError):
            requested_range(f"bytes={first}-{last}", size)
    else:
        assert part(f"Bytes = {first} - {last}") == data[first : last + 1]
        assert part(f"bytes={first}-") == data[first:]
    if last:
        assert part(f"bytes=-{last}") == data[-last:]
    else:
        with pytest.raises(ValueError):
            requested_range("bytes=-0", size)


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "b\x00"]
)
def test_what_is_no_single_range_means_everything(header: str) -> None:
    assert requested_range(header, 10) is None


@pytest.mark.parametrize("size", [0, 1])
def test_of_nothing_there_is_no_part(size: int) -> None:
    with pytest.raises(ValueError):
        requested_range("bytes=1-1", size)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True), ("gzip, deflate, br", True), ("br;q=1.0, gzip;q=0.8, *;q=0.1", True), ("*", True),
        ("x-gzip", True), ("GZIP ; q=0.5", True), ("", False), ("identity", False), ("gzip;q=0", False),
        ("*;q=0", False), ("gzip;q=0, *", False), ("gzip;q=.", False), ("deflate, br", False),
    ],
)  # fmt: skip
def test_gzip_is_sent_to_those_who_accept_it(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted
