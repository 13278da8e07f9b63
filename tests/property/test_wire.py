"""The fast parser delivers the same as that of nats-py, however the bytes are cut, and refuses other protocols."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser as Reference

from mesh.bus.wire import MAX_LINE_BYTES, Message, Parser, header_block, parse_headers

#: The parser calls the first of these subscriptions directly, and the second through nats-py.
SUBSCRIPTIONS = (b"7", b"12")


class RecordingClient:
    """Records what a parser reports to its client, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self._ps = Reference(self)
        self._pongs = [self] * 1000
        self._pongs_received = self._pings_outstanding = 0

    def message(self, number: bytes, message: Message) -> None:
        """A direct callback was called."""
        reply, subject = message.reply.encode(), message.subject.encode()
        self.all.append(("MSG", int(number), subject, reply, message.data, message.raw_headers))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.all.append(("MSG", sid, subject, reply, data, headers or b""))

    async def _process_ping(self) -> None:
        self.all.append(("PING",))

    async def _process_pong(self) -> None:
        self.all.append(("PONG",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.all.append(("INFO", info))

    async def _process_err(self, text: str) -> None:
        self.all.append(("-ERR", text))

    # Each waiting flush is this object too, so that it records the PONG.
    def done(self) -> bool:
        return False

    def set_result(self, _: bool) -> None:
        self.all.append(("PONG",))


def fast(received: RecordingClient) -> Parser:
    """The parser under test."""
    parser = Parser(received)
    parser.direct[SUBSCRIPTIONS[0]] = lambda message: received.message(SUBSCRIPTIONS[0], message)
    return parser


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits."""
    with pytest.raises(StopIteration):
        work.send(None)


SUBJECTS = st.text("abcMH-_$.*>09", min_size=1, max_size=30).map(str.encode)
PAYLOADS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\r\n", b"PING\r\n", b"MSG a 7 3\r\nabc\r\n", b"\r", b"x" * 5000]),
)
NAMES = st.text("abcXYZ-", min_size=1, max_size=10)
HEADERS = st.dictionaries(NAMES, st.text(max_size=20), max_size=3).map(header_block)
STATUSES = st.sampled_from([b"NATS/1.0 408 Request Timeout\r\nNats-Pending: 1\r\n\r\n", b"NATS/1.0 503\r\n\r\n"])


@st.composite
def messages(draw) -> bytes:
    """A MSG or HMSG as the server writes it."""
    fields = [draw(SUBJECTS), draw(st.sampled_from(SUBSCRIPTIONS))]
    if draw(st.booleans()):
        fields.append(draw(SUBJECTS))
    payload = draw(PAYLOADS)
    if draw(st.booleans()):
        return b"MSG %s %d\r\n%s\r\n" % (b" ".join(fields), len(payload), payload)
    block = draw(st.one_of(HEADERS, STATUSES))
    sizes = b"%d %d" % (len(block), len(block) + len(payload))
    return b"HMSG %s %s\r\n%s%s\r\n" % (b" ".join(fields), sizes, block, payload)


INFOS = st.dictionaries(st.text(max_size=8), st.text(max_size=30), max_size=3).map(
    lambda info: b"INFO %s\r\n" % json.dumps(info).encode()
)
LINES = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Permissions Violation for \"a\"'\r\n"])
STREAMS = st.lists(st.one_of(messages(), messages(), INFOS, LINES), max_size=12).map(b"".join)


@st.composite
def cut(draw, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream in pieces of any size."""
    stream = draw(streams)
    places = draw(st.lists(st.integers(0, len(stream)), max_size=20))
    return [stream[a:b] for a, b in pairwise([0, *sorted(places), len(stream)])]


@given(cut(STREAMS))
def test_it_reports_the_same_as_the_parser_of_nats_py(pieces) -> None:
    expected, received = RecordingClient(), RecordingClient()
    run(Reference(expected).parse(b"".join(pieces)))
    parser = fast(received)
    for piece in pieces:
        run(parser.parse(piece))
    assert received.all == expected.all


@given(STREAMS)
def test_byte_by_byte(stream) -> None:
    expected, received = RecordingClient(), RecordingClient()
    run(Reference(expected).parse(stream))
    parser = fast(received)
    for number in range(len(stream)):
        run(parser.parse(stream[number : number + 1]))
    assert received.all == expected.all


@given(cut(STREAMS), STREAMS)
def test_after_a_reset_nothing_is_left_of_the_old_connection(pieces, stream) -> None:
    expected, received = RecordingClient(), RecordingClient()
    run(Reference(expected).parse(stream))
    parser = fast(received)
    for piece in pieces[:-1]:
        run(parser.parse(piece))
    parser.reset()
    received.all.clear()
    run(parser.parse(stream))
    assert received.all == expected.all


@st.composite
def broken(draw) -> bytes:
    """A stream with a few bytes changed, removed or inserted."""
    stream = draw(STREAMS)
    for _ in range(draw(st.integers(1, 3))):
        at, gone = draw(st.integers(0, len(stream))), draw(st.integers(0, 3))
        stream = stream[:at] + draw(st.binary(max_size=4)) + stream[at + gone :]
    return stream


@given(cut(st.one_of(st.binary(max_size=200), broken(), st.text("MSGH a7 -\r\n0123", max_size=80).map(str.encode))))
@example([b"MSG a 7 -15\r\nxxxxxxxx"])
@example([b"HMSG a 7 -40 -40\r\nxxxxxxxx"])
@example([b"-ERR \r\n"])
@example([b"INFO {\r\n"])
def test_garbage_is_refused_or_kept_as_an_incomplete_message(pieces) -> None:
    """A reader that ends with any other error is not restarted, and the node would receive nothing any more."""
    parser = fast(RecordingClient())
    try:
        for piece in pieces:
            coroutine = parser.parse(piece)
            try:
                coroutine.send(None)
            except StopIteration:
                continue
            raise AssertionError("it waits for something")
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "line",
    [
        b"MSG\r\n", b"MSG a 7\r\n", b"MSG a 7 b c 3\r\n", b"MSG a x 3\r\nabc\r\n", b"MSG a 7 x\r\n", b"MSG a 7 -1\r\n",
        b"MSG a 7 -15\r\n", b"HMSG a 7 3\r\nabc\r\n", b"HMSG a 7 9 3\r\nabc\r\n", b"HMSG a 7 -1 3\r\nabc\r\n",
        b"MASG a 7 3\r\nabc\r\n", b"HELLO\r\n", b"\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"-ERR \r\n", b"INFO {\r\n",
        b"INFO [\r\n", b"x" * 10_000 + b"\r\n", b"x" * (MAX_LINE_BYTES + 1),
    ],
)  # fmt: skip
def test_other_protocols_are_refused(line) -> None:
    received = RecordingClient()
    with pytest.raises(ProtocolError):
        fast(received).parse(line).send(None)
    assert not received.all


@given(st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20), max_size=5))
def test_headers_survive_encoding_and_parsing(headers) -> None:
    assert parse_headers(header_block(headers)) == headers
