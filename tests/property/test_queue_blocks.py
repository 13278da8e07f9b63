"""What the files of a queue tell after a kill: nothing lost looks lost, and what is lost is counted."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.server.queue_blocks import Mark, Queued, mark, queued

TOMBSTONE = 1 << 62
IN_BLOCK = 4


class Files:
    """A queue as nats-server 2.15.1 writes it, four messages to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.here, self.last = folder, set[int](), 0
        (folder / "msgs").mkdir()
        (folder / "meta.inf").write_text(json.dumps({"retention": "workqueue"}))
        self.blocks: dict[int, list[tuple[int, int]]] = {1: []}
        """Number -> (sequence with flag, size) of each record."""
        self.flush()

    def store(self) -> None:
        if sum(sequence < TOMBSTONE for sequence, _ in self.blocks[max(self.blocks)]) == IN_BLOCK:
            self.blocks[max(self.blocks) + 1] = []
        self.last += 1
        self.here.add(self.last)
        self.blocks[max(self.blocks)].append((self.last, 100))

    def take(self, sequence: int) -> None:
        self.here.discard(sequence)
        newest = max(self.blocks)
        block = next(number for number, records in self.blocks.items() if (sequence, 100) in records)
        records = self.blocks[block]
        if block == newest or self.here & {sequence for sequence, _ in records}:
            self.blocks[newest].append((sequence | TOMBSTONE, 30))
        elif not any(other & TOMBSTONE and other ^ TOMBSTONE < records[0][0] for other, _ in records):
            del self.blocks[block]

    def restored(self, without: int = 0) -> int:
        """How many messages a server finds that starts without this file."""
        found = {sequence for number, block in self.blocks.items() if number != without for sequence, _ in block}
        return sum(sequence < TOMBSTONE and sequence | TOMBSTONE not in found for sequence in found)

    def flush(self) -> None:
        for file in (self.folder / "msgs").iterdir():
            file.unlink()
        for number, records in self.blocks.items():
            data = (struct.pack("<IQqH", size, sequence, 0, 0).ljust(size, b"\0") for sequence, size in records)
            (self.folder / "msgs" / f"{number}.blk").write_bytes(b"".join(data))

    def play(self, moves: list[int]) -> None:
        for move in moves:
            if move < 0 or not self.here:
                self.store()
            else:
                self.take(sorted(self.here)[move % len(self.here)])
        self.flush()


MOVES = st.lists(st.integers(-20, 20), max_size=60)


@given(MOVES, MOVES, st.integers(0, 99), st.sampled_from(["", "emptied", "removed"]))
def test_a_queue_holds_what_was_stored_and_not_taken(before: list[int], after: list[int], which: int, how: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        files.play(before)
        marked, messages, last = mark(files.folder), len(files.here), files.last
        assert marked is not None and marked.blocks == len(files.blocks)
        files.play(after)
        damaged = sorted(number for number in files.blocks if number < marked.block)
        lost = number = 0
        if how and damaged:
            number = damaged[which % len(damaged)]
            lost = files.restored() - files.restored(number)
            file = Path(folder) / "msgs" / f"{number}.blk"
            file.unlink() if how == "removed" else file.write_bytes(b"")
        found = queued(files.folder, marked, messages, last)
        if found is None:
            assert not files.blocks.keys() >= {*range(marked.block, max(files.blocks))}, "the files tell"
            return
        restored = files.restored(number)
        assert restored >= found.messages - found.tolerance or lost, "nothing is missing"
        # The last message of a file has no tombstone: it comes back where the file stays for other tombstones in it.
        came_back = files.restored() - len(files.here)
        if lost - came_back > found.tolerance:
            assert restored < found.messages - found.tolerance, "what is missing is seen"


def test_a_record_that_was_half_written_and_files_that_are_none_prove_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.play([-1] * 3)
    marked = mark(tmp_path)
    assert marked == Mark(1, 300, 1)
    newest = tmp_path / "msgs" / "1.blk"
    newest.write_bytes(newest.read_bytes() + struct.pack("<IQqH", 500, 4, 0, 0))
    assert queued(tmp_path, marked, 3, 3) == Queued(3, 0)
    newest.write_bytes(newest.read_bytes() + b"\0" * 100)
    assert queued(tmp_path, marked, 3, 3) == Queued(3, 0)
    newest.write_bytes(newest.read_bytes()[:300] + b"\0" * 100)
    assert queued(tmp_path, marked, 3, 3) is None
    newest.write_bytes(b"")
    assert queued(tmp_path, marked, 3, 3) is None
    (tmp_path / "meta.inf").write_text(json.dumps({"retention": "workqueue", "allow_msg_ttl": True}))
    assert mark(tmp_path) is None and mark(tmp_path / "gone") is None
