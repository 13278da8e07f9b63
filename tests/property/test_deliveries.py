"""An ack subject is parsed correctly, with and without a domain in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.replies import parse_ack_subject

NUMBERS = st.integers(0, (1 << 64) - 1)
TOKEN = st.text("abcXYZ019_-~", min_size=1, max_size=20)


@given(TOKEN, TOKEN, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_every_form_of_an_ack_subject_is_read(stream, consumer, delivered, sequence, c_sequence, at, pending) -> None:
    tail = f"{stream}.{consumer}.{delivered}.{sequence}.{c_sequence}.{at}.{pending}"
    assert parse_ack_subject(f"$JS.ACK.{tail}") == (delivered, sequence, pending)
    assert parse_ack_subject(f"$JS.ACK.hub.ACCHASH.{tail}") == (delivered, sequence, pending)
    assert parse_ack_subject(f"$JS.ACK._.ACCHASH.{tail}.random") == (delivered, sequence, pending)
