"""Frames are decoded as they were encoded, however the byte stream is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.messages import TaskError
from node.executor import protocol

bodies = st.lists(st.tuples(st.integers(1, 5), st.binary(max_size=300)), max_size=12)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({min(edge, len(data)) for edge in at} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(bodies, st.lists(st.integers(0, 4000), max_size=30))
def test_any_cut_gives_the_same_frames(sent, at):
    stream = b"".join(bytes(protocol.frame(kind, body)) for kind, body in sent)
    splitter, received = protocol.Splitter(), []
    for piece in cut(stream, at):
        received += [(kind, bytes(body)) for kind, body in splitter.feed(piece)]
    assert received == [(kind, bytes(protocol.frame(kind, body)[protocol.HEADER_BYTES :])) for kind, body in sent]


def test_byte_by_byte():
    stream, splitter = bytes(protocol.frame(protocol.SKIPPED, [1, 2, 3])), protocol.Splitter()
    got = [protocol.decode_skipped(body) for byte in stream for _, body in splitter.feed(bytes([byte]))]
    assert got == [[1, 2, 3]]


@pytest.mark.parametrize("length", [0, protocol.MAX_FRAME_BYTES + 1])
def test_an_impossible_length_is_an_error(length):
    with pytest.raises(protocol.BrokenStream):
        list(protocol.Splitter().feed(length.to_bytes(4, "little") + b"x"))


def test_jobs_and_results_keep_every_field():
    job = protocol.JobFrame(7, "echo", b"\x80", 2, 512, {"b-1": "/tmp/b"})
    end = protocol.ResultFrame(
        7, 1.5, 0.25, b"\xc0", TaskError("failed", "why", (("payload.x", "is bad"),), True), "a/b", "/f", {"w": 1}
    )
    [(_, body)] = protocol.Splitter().feed(protocol.frame(protocol.JOBS, [job]))
    assert protocol.decode_jobs(body) == [job]
    [(_, body)] = protocol.Splitter().feed(protocol.frame(protocol.RESULTS, [end]))
    assert protocol.decode_results(body) == [end]
