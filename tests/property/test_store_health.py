"""The health of a store: a restart only with room, with pauses between them, and never of a server that is fine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.server import health
from mesh.bus.server.health import Disk, Memory, Seen, judge, restarted
from mesh.bus.server.server_log import LogFacts, read_lines
from mesh.cluster.durability import safety
from mesh.coordination import StoreReport
from mesh.errors import StoreFullNow
from mesh.membership import store_reports

FAULTS = st.sampled_from(["", "", "full", "read-only", "denied", "failing", "hangs", "gone"])
LOOKS = st.lists(
    st.builds(
        Seen,
        disk=st.builds(Disk, st.integers(0, 10**9), FAULTS),
        answers=st.booleans(),
        enabled=st.booleans(),
        fault=st.sampled_from(["", "", "WORK: stream write error"]),
        write_errors=st.sampled_from([0, 0, 0, 1]),
    ),
    max_size=60,
)
FINE = Seen(Disk(10**10))


@given(LOOKS)
def test_a_restart_needs_a_disk_that_takes_writes_and_a_pause_since_the_last_one(looks: list[Seen]) -> None:
    memory, now, restarts = Memory(), 0.0, list[float]()
    for seen in looks:
        now += 1.0
        verdict, memory = judge(seen, memory, now)
        if verdict.restart:
            assert not seen.disk.fault and seen.disk.free_bytes >= health.RESERVE_BYTES
            assert not verdict.stores
            pause_s = health.BACK_OFF_S[min(len(restarts), len(health.BACK_OFF_S) - 1)]
            assert not restarts or now - restarts[-1] >= pause_s
            restarts.append(now)
            memory = restarted(memory, now)
        assert verdict.stores or verdict.says
        assert not verdict.is_full or seen.disk.fault in ("", "full"), "a disk that hangs is not called full"


@given(st.integers(1, 200))
def test_a_server_that_is_fine_is_left_alone(count: int) -> None:
    memory = Memory()
    for number in range(count):
        verdict, memory = judge(FINE, memory, float(number))
        assert verdict == health.Verdict()


def test_a_disk_is_full_before_the_last_byte_and_has_room_again_only_with_some_to_spare() -> None:
    low, memory = judge(Seen(Disk(health.LOW_BYTES - 1)), Memory(), 0.0)
    assert low.stores and "nearly full" in low.says
    full, memory = judge(Seen(Disk(health.RESERVE_BYTES - 1)), memory, 1.0)
    assert full.is_full and not full.stores and not full.restart and "free space on it" in full.says
    still, memory = judge(Seen(Disk(health.RESERVE_BYTES + 1)), memory, 2.0)
    assert still.is_full, "no flapping around the limit"
    room, memory = judge(Seen(Disk(health.ROOM_BYTES)), memory, 3.0)
    assert room.stores and not room.restart, "nothing failed meanwhile: no restart"


def test_each_way_to_live_without_storing_ends_in_a_restart() -> None:
    disk = Disk(10**10)
    off, _ = judge(Seen(disk, enabled=False), Memory(), 0.0)
    assert off.restart and off.serves_nothing
    logged, _ = judge(Seen(disk, write_errors=1), Memory(), 0.0)
    assert logged.restart and not logged.serves_nothing
    memory = Memory()
    for number in range(health.HUNG_AFTER_LOOKS):
        silent, memory = judge(Seen(disk, answers=False), memory, 2.0 * number)
    assert silent.restart and silent.serves_nothing
    _, memory = judge(Seen(disk, fault="WORK: stream write error"), Memory(), 0.0)
    broken, _ = judge(Seen(disk, fault="WORK: stream write error"), memory, health.FAULT_S)
    assert broken.restart and "WORK" in broken.says
    _, memory = judge(Seen(Disk(10**10, "full")), Memory(), 0.0)
    after, _ = judge(Seen(disk), memory, 1.0)
    assert after.restart, "its own write failed, so writes of the server may have failed, too"


def test_the_log_of_the_server_is_read_from_its_last_start() -> None:
    error = (
        "[7] 2026/11/29 23:33:08.5 [ERR] Filestore [WORK] Critical write error: write 1.blk: no space left on device"
    )
    found = read_lines(LogFacts(), [error, error])
    assert found.write_errors == 2
    assert read_lines(found, ["[8] 2026/11/29 23:34:00.1 [INF] Starting nats-server"]).write_errors == 0
    assert read_lines(found, ["[8] [INF] Server is ready", "[8] [WRN] JetStream cluster checking"]).write_errors == 2


def test_submissions_are_refused_when_a_majority_can_not_store() -> None:
    full = StoreReport(node="a", name="one", servers=3, stores=False, is_full=True, says="the disk is full")
    assert store_reports.refusal([full]) is None, "two of three store"
    two = [full, StoreReport(node="b", name="two", servers=3, stores=False, says="the disk fails to write")]
    error = store_reports.refusal(two)
    assert isinstance(error, StoreFullNow) and error.http_status == 507
    assert "one" in error.message and "two" in error.message
    lone = store_reports.refusal([StoreReport(node="a", stores=False, says="its disk hangs")])
    assert lone is not None and lone.http_status == 503 and lone.retry_after_s > 0
    assert store_reports.refusal([StoreReport(node="a", says="the disk is nearly full")]) is None


def test_an_alarm_names_the_machine_the_stream_and_the_count() -> None:
    found = store_reports.alarms([StoreReport(node="a", name="one", lost={"WORK": 2})])
    assert found == {
        "lost-a-WORK": "The store on one has lost 2 messages of the stream WORK (its files are damaged): they had no "
        "other copy."
    }


def test_the_safety_sentence_counts_who_stores_and_admits_what_was_not_read() -> None:
    assert safety(["a", "b"], (), "", ["c"]) == (
        "2 of 3 copies are kept up, on a, b; c can't store: losing another one stops the bus"
    )
    assert safety([], (), "", ["a"]).startswith("no bus server can store (a can't store)")
    assert "b, c can't store" in safety(["a"], (), "", ["b", "c"])
    assert "could not be read" in safety(["a", "b", "c"], (), None)
    assert safety(["a"], (), None) == safety(["a"])
