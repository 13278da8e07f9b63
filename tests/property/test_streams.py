"""The size limits of the streams, from the size of their disk."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.streams import fit_to_disk
from mesh.config import LAN

FREE = st.integers(256 << 20, 1 << 45)
SHARES = st.floats(0.01, 0.6)


@given(FREE, SHARES)
def test_the_queue_the_results_and_the_blobs_fit_on_the_disk_together(free_bytes: int, share: float) -> None:
    fitted, blobs_max_bytes = fit_to_disk(replace(LAN, blobs_disk_share=share), free_bytes)
    assert fitted.work_max_bytes + fitted.tasks_max_bytes + 2 * blobs_max_bytes <= free_bytes
    assert 0 < fitted.work_max_bytes <= LAN.work_max_bytes
    assert 0 < fitted.tasks_max_bytes <= LAN.tasks_max_bytes
    assert abs(2 * blobs_max_bytes - share * free_bytes) <= 2


@given(FREE)
def test_a_larger_disk_never_means_lower_limits(free_bytes: int) -> None:
    (small, small_blobs), (large, large_blobs) = fit_to_disk(LAN, free_bytes), fit_to_disk(LAN, 2 * free_bytes)
    assert small.work_max_bytes <= large.work_max_bytes and small.tasks_max_bytes <= large.tasks_max_bytes
    assert small_blobs <= large_blobs
