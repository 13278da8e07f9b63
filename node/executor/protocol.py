"""The protocol between the daemon and a worker process: length-prefixed MessagePack over a socket pair.

A frame is 4 bytes of length (little endian, of everything that follows), 1 byte of type, and the body. Jobs and results
travel as arrays, many in a frame. Frames are never stored and never leave the machine, so they carry no version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mesh.messages import TaskError

HEADER_BYTES = 5
#: A longer frame means that the stream is broken, bytes.
MAX_FRAME_BYTES = 256 * 1024 * 1024

#: daemon -> worker: [JobFrame, …]
JOBS = 1
#: worker -> daemon, once, when it can take jobs: its pid
READY = 2
#: worker -> daemon: [ResultFrame, …]
RESULTS = 3
#: worker -> daemon: [seq, …] of jobs that it did not start, because the daemon had recalled them
SKIPPED = 4
#: worker -> daemon: [seq, fraction, note, the end of the text so far, number of characters before that]
PROGRESS = 5
#: worker -> daemon: [seq, file, note]; the file belongs to the daemon from then on
CHECKPOINT = 6

# --- words of the board, a page that both processes map; 8 bytes each, written in one store ------------
#: float: when the present job started, on the machine's monotonic clock; written before CURRENT
STARTED = 0
#: int: the sequence number of the present job (or of the last one)
CURRENT = 1
#: int, written by the daemon: jobs with a lower number must not start any more
FLOOR = 2
#: int: resident memory of the worker before its present job, bytes
BASE = 3
#: int, written by the daemon: how many checkpoints of the present job the mesh has stored
KEPT = 4
#: int, written by the daemon: how many it could not store
UNKEPT = 5
BOARD_BYTES = 4096


class JobFrame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One job on its way to a worker."""

    seq: int
    kind: str
    payload: bytes
    """raw MessagePack; b"" means all defaults"""
    cores: int
    memory_mb: int
    blobs: dict[str, str] | None = None
    """blob id -> the file that holds it"""
    resume: str = ""
    """the file that holds the checkpoint to resume from"""


class ResultFrame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The end of one job on its way back."""

    seq: int
    started_at: float
    """Unix seconds"""
    ran_s: float
    result: bytes
    """raw MessagePack; b"" means that there is none, or that `file` holds it"""
    error: TaskError | None = None
    content_type: str = ""
    file: str = ""
    info: dict[str, Any] | None = None
    attached: dict[str, tuple[str, str]] | None = None
    """name -> (file, content type) of each file that belongs to the result"""


_encoder = msgspec.msgpack.Encoder()
decode_jobs = msgspec.msgpack.Decoder(list[JobFrame]).decode
decode_results = msgspec.msgpack.Decoder(list[ResultFrame]).decode
decode_skipped = msgspec.msgpack.Decoder(list[int]).decode
decode_progress = msgspec.msgpack.Decoder(tuple[int, float, str, str, int]).decode
decode_checkpoint = msgspec.msgpack.Decoder(tuple[int, str, str]).decode


class BrokenStream(ValueError):
    """The bytes from the socket are not a frame."""


def frame(kind: int, body: Any) -> bytearray:
    """`body` as one frame of type `kind`."""
    made = bytearray(HEADER_BYTES)
    _encoder.encode_into(body, made, HEADER_BYTES)
    made[:4] = (len(made) - 4).to_bytes(4, "little")
    made[4] = kind
    return made


class Splitter:
    """Splits a byte stream into frames; keeps an incomplete one for later."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[tuple[int, memoryview]]:
        """(type, body) of every frame that `data` completes; a body is valid until the next iteration.

        Raises: BrokenStream, for an impossible length.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < 4 or len(self._rest) < 4 + self._length(self._rest, 0):
                return
            data, self._rest = self._rest, bytearray()
        at, end = 0, len(data)
        view = memoryview(data)
        while end - at >= 4:
            length = self._length(data, at)
            if end - at - 4 < length:
                break
            yield data[at + 4], view[at + HEADER_BYTES : at + 4 + length]
            at += 4 + length
        if at < end:
            self._rest += view[at:]

    @staticmethod
    def _length(data: bytes | bytearray | memoryview, at: int) -> int:
        length = int.from_bytes(data[at : at + 4], "little")
        if not 1 <= length <= MAX_FRAME_BYTES:
            raise BrokenStream(f"a frame can't be {length} bytes long")
        return length
