"""How a nonce search is split into tasks, and that a wrong result is never accepted."""

from itertools import pairwise

import pytest

from mesh.errors import BadInput
from mesh.kinds.crypto_mining import GENESIS_NONCE
from mesh.kinds.table import validate
from mesh.splitting.nonces import FIRST_COUNT, TASK_S, Part, Range, SearchResult, checked, is_right
from node.executor.context import Context, load


def test_parts_cover_the_range_once_and_follow_the_measured_rate():
    left = Range(5, 5 + 3 * FIRST_COUNT)
    first = left.take()
    assert first == Part(5, FIRST_COUNT)
    left.rate_hs = FIRST_COUNT / TASK_S / 2
    parts = [first]
    while (part := left.take()) is not None:
        parts.append(part)
    assert [part.count for part in parts] == [FIRST_COUNT, *[FIRST_COUNT // 2] * 4]
    assert all(part.start + part.count == following.start for part, following in pairwise(parts))
    assert parts[-1].start + parts[-1].count == left.end and left.take() is None


def test_the_first_nonce_and_the_best_hash_are_kept():
    mined = SearchResult(100)
    mined.add({"hashes": 10, "best_hash_hex": "0b", "best_nonce": 1, "found": False, "nonce": None})
    mined.add({"hashes": 5, "best_hash_hex": "0a", "best_nonce": 14, "found": True, "nonce": 14})
    mined.add({"hashes": 5, "best_hash_hex": "09", "best_nonce": 20, "found": True, "nonce": 20})
    assert (mined.hashes, mined.parts, mined.nonce, mined.hash_hex, mined.best) == (20, 3, 14, "0a", ("09", 20))


def test_only_right_results_are_accepted(tmp_path):
    payload = validate("crypto_mining", {"block": "genesis"})
    part = Part(GENESIS_NONCE - 300, 600)

    def run(first, count):
        asked = {"block": "genesis", "nonce_start": first, "nonce_count": count}
        return load("crypto_mining")(validate("crypto_mining", asked), Context(1, tmp_path))

    found, not_found = run(part.start, part.count), run(part.start, 200)
    assert is_right(payload, found, part) and is_right(payload, not_found, Part(part.start, 200))
    assert not is_right(payload, found, Part(part.start, 200)), "a nonce of another part"
    assert not is_right(payload, not_found, part), "not all of its nonces were tried"
    for spoilt in (
        {"nonce": GENESIS_NONCE + 1},
        {"best_nonce": GENESIS_NONCE + 1},
        {"best_hash_hex": "00" * 32},
        {"found": False, "nonce": None},
        {"best_nonce": -1},
        {"best_nonce": "7"},
    ):
        assert not is_right(payload, found | spoilt, part), spoilt
    assert not is_right(payload, {}, part)
    assert not is_right(payload, not_found | {"found": True}, Part(part.start, 200))


def test_a_time_limit_is_refused():
    with pytest.raises(BadInput) as caught:
        checked({"seconds": 3})
    assert [fault.field for fault in caught.value.faults] == ["payload.seconds"]
    assert checked({}).nonces == (0, 1 << 32)
