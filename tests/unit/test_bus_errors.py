"""Errors of the bus as clients get them: a full disk is named, and no path of the host is shown."""

from __future__ import annotations

import pytest

from mesh.bus.errors import ApiError, api_error, refusal
from mesh.errors import Busy, QueztlError, StorageFull

FULL = "write /var/lib/queztl/n1/js/MESH/streams/WORK/msgs/3.blk: no space left on device"
QUOTA = "mkdir /home/ada/.queztl/js/obs/lane: disk quota exceeded"


def errors(code: int, description: str) -> list[QueztlError]:
    error = {"code": 503, "err_code": code, "description": description}
    return [api_error(error), *(refusal(error, subject) for subject in ("work.echo.any.normal.c1-1", "$O.blobs.C.x"))]


@pytest.mark.parametrize("code", [10077, 10049, 10012, 10000])
@pytest.mark.parametrize("description", [FULL, QUOTA])
def test_a_full_disk_is_storage_full_and_names_the_disk(code: int, description: str) -> None:
    for error in errors(code, description):
        assert isinstance(error, StorageFull) and (error.http_status, error.code) == (507, "storage_full")
        assert "disk" in error.message and "/" not in error.message


def test_a_refusal_shows_no_path() -> None:
    for error in errors(10049, "open /var/lib/queztl/js/meta.inf: permission denied"):
        assert error.message == "the bus refused: open a file: permission denied (10049)"
        assert isinstance(error, ApiError) and error.description.startswith("open /var"), "the log has the path"
    assert api_error({"err_code": 1, "description": "read/write at 3/4 of $JS.API"}).message.count("/") == 2


def test_the_limits_of_a_store_are_no_internal_error() -> None:
    refused, work, blob = errors(10047, "insufficient storage resources available")
    assert (refused.http_status, blob.http_status) == (507, 507) and isinstance(work, Busy)
