"""The table of JetStream's error codes against the list that nats-server publishes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.error_codes import KNOWN, NOTHING_DONE, PASSING_REASONS, PERMANENT, TRANSIENT, Meaning, meaning
from mesh.bus.errors import ApiError, NotNow, answer_of, api_error, is_gone, refusal
from mesh.errors import BusUnavailable, Busy, QueztlError

#: error code -> (HTTP status, name)
PUBLISHED = {
    int(code): (int(status), name)
    for code, status, name in (
        line.split()
        for line in (Path(__file__).parent / "jetstream_errors.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}


def test_the_table_has_the_names_that_the_server_publishes() -> None:
    for code, name in (TRANSIENT | PERMANENT).items():
        assert PUBLISHED[code][1] == name
    assert not TRANSIENT.keys() & PERMANENT.keys() and TRANSIENT.keys() >= NOTHING_DONE
    assert set(PUBLISHED) <= set(KNOWN)


def test_no_code_with_a_status_that_asks_to_wait_is_given_up_by_mistake() -> None:
    waiting = {code for code, (status, _) in PUBLISHED.items() if status in (429, 503)}
    judged_otherwise = {code for code in waiting if meaning(code) is not Meaning.TRANSIENT}
    assert {PUBLISHED[code][1] for code in judged_otherwise} == {
        "JSStreamStoreFailedF",  # over a limit of the stream, unless its text says that the store is closed
        "JSClusterUnSupportFeatureErr",
    }


@pytest.mark.parametrize("code", [10008, 10009, 10039, 10059, 10076, 10118, 10119, 10023, 10202])
def test_what_a_rolling_restart_answers_is_503_with_retry_after(code: int) -> None:
    document = {"code": PUBLISHED[code][0], "err_code": code, "description": "consumer is offline"}
    for error in (api_error(document), refusal(document, "work.echo.any.normal.c1-1"), refusal(document, "$KV.x.y")):
        assert isinstance(error, NotNow) and isinstance(error, BusUnavailable) and isinstance(error, Busy)
        assert (error.http_status, error.code, error.error_code) == (503, "bus_unavailable", code)
        assert error.retry_after_s > 0 and "try again" in error.message


@pytest.mark.parametrize("reason", PASSING_REASONS)
@pytest.mark.parametrize("code", [10012, 10049, 10077])
def test_a_store_that_closes_is_no_full_store(code: int, reason: str) -> None:
    document = {"code": 500, "err_code": code, "description": reason}
    assert isinstance(api_error(document), NotNow) and isinstance(refusal(document, "work.echo.a.b.c-1"), NotNow)
    assert not isinstance(api_error(document | {"description": "maximum bytes exceeded"}), NotNow)


@given(code=st.integers(-1, 70_000), status=st.integers(0, 599), description=st.text(max_size=60))
def test_every_code_becomes_an_error_with_a_sentence(code: int, status: int, description: str) -> None:
    document = {"code": status, "err_code": code, "description": description}
    for error in (api_error(document), refusal(document, "work.echo.any.normal.c1-1"), refusal(document, "$KV.x.y")):
        assert isinstance(error, QueztlError) and len(error.message) > 20
        if error.http_status == 500:
            assert isinstance(error, ApiError) and str(code) in error.message
        if error.http_status == 503:
            assert isinstance(error, Busy)


@pytest.mark.parametrize("document", [{}, {"err_code": None}, {"code": "x", "err_code": "y", "description": None}])
def test_an_error_of_another_shape_is_an_error_with_a_sentence(document: dict[str, object]) -> None:
    assert api_error(document).message


def test_unknown_codes_go_by_their_status() -> None:
    assert meaning(10999, 503) is meaning(10999, 429) is Meaning.TRANSIENT
    assert (meaning(10999, 400), meaning(10999, 500)) == (Meaning.MISUSE, Meaning.PERMANENT)
    assert "does not know" in api_error({"code": 500, "err_code": 10999, "description": "new"}).message
    assert "report it" in api_error({"code": 400, "err_code": 10003, "description": "bad request"}).message


@pytest.mark.parametrize("data", [b"", b"no JSON", b"[1]", b"null", b"[" * 100_000])
def test_an_answer_that_is_no_object_is_the_bus_that_does_not_answer(data: bytes) -> None:
    with pytest.raises(BusUnavailable):
        answer_of(data)


def test_a_message_that_is_gone_is_recognised_in_each_answer() -> None:
    gone = [(10037, "no message found"), (10043, "sequence 4 not found"), (10057, "deleted message")]
    assert all(is_gone(api_error({"code": 404, "err_code": code, "description": text})) for code, text in gone)
    assert not is_gone(api_error({"code": 500, "err_code": 10057, "description": "message delete not permitted"}))
