"""crypto_mining: distributes a range of nonces over the cores and checks the result.

There are three engines: machine code compiled by LLVM, in threads (`sha256_vector`, twenty times faster, requires
`llvmlite`); the interpreter's own SHA-256, in processes (`sha256_lane`); and, on request, a GPU (`sha256_gpu`). The
result names the engine.
"""

from __future__ import annotations

import hashlib
import selectors
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.kinds.crypto_mining import CryptoMiningPayload
from node.executor.context import Context
from node.workloads.mining import sha256_gpu, sha256_lane, sha256_vector

#: Nonces of a piece, the work that a lane takes at a time: about 0.1 s, so that it stops soon; the first is smaller.
_PIECE = 100_000
_VECTOR_PIECE = 3_000_000
_FIRST_PIECE = 10_000
#: With fewer nonces than this, compiling takes longer than hashing without LLVM.
_WORTH_COMPILING = 300_000
_PROGRESS_AFTER_S = 1.0


@dataclass
class Search:
    """The state of a search. Lanes take pieces in order and return them in any order."""

    first: int
    end: int
    full_piece: int = _PIECE
    piece: int = _FIRST_PIECE
    next: int = -1
    hashes: int = 0
    found: int | None = None
    best: tuple[bytes, int] = (b"\xff" * 33, 0)
    pending: dict[Any, int] = field(default_factory=dict)
    """lane -> the first nonce of its piece"""

    def __post_init__(self) -> None:
        self.next = self.first

    def take(self, lane: Any) -> tuple[int, int] | None:
        """The next piece as (start, count); None when no nonce below the one found is left."""
        end = self.end if self.found is None else min(self.end, self.found)
        if self.next >= end:
            return None
        start, count = self.next, min(self.piece, end - self.next)
        self.next, self.piece = start + count, self.full_piece
        self.pending[lane] = start
        return start, count

    def put(self, lane: Any, result: tuple[int, int, int, bytes]) -> None:
        """Merge the result of a lane's piece. The lowest nonce found wins, regardless of the order of results."""
        del self.pending[lane]
        done, found, best_nonce, best = result
        self.hashes += done
        self.best = min(self.best, (best, best_nonce))
        if found >= 0:
            self.found = found if self.found is None else min(self.found, found)

    @property
    def open(self) -> bool:
        """Whether a pending piece could contain a lower nonce than the one found."""
        return any(self.found is None or start < self.found for start in self.pending.values())


def run(payload: CryptoMiningPayload, context: Context) -> dict[str, Any]:
    """Search, and return algorithm, hashes, seconds, hash_rate_hs (hashes per second), engine, cores, found, nonce,
    hash_hex, best_nonce, best_hash_hex and target_hex.

    `seconds` is the duration of the search alone. Raises: RuntimeError when the result differs from hashlib's, or a
    lane dies; ImportError when a GPU is requested and there is none.
    """
    first, end = payload.nonces
    on_gpu = payload.device == "gpu"
    vector = None if on_gpu else _kernel(payload, end - first)
    kernel = sha256_gpu.kernel() if on_gpu else vector
    search = Search(first, end, sha256_gpu.PIECE if on_gpu else _VECTOR_PIECE if kernel else _PIECE)
    started = time.perf_counter()
    watch = _Watch(search, payload.limit_s, started, context)
    scan = kernel.scan if kernel else sha256_lane.scan
    if context.cores == 1 or on_gpu:
        while not watch.over() and (piece := search.take(0)) is not None:
            search.put(0, scan(payload.header, *piece, payload.target))
    elif vector:
        _run_threads(payload, context.cores, vector, search, watch)
    else:
        pieces = -(-(search.end - search.first) // _FIRST_PIECE)
        _run_lanes(payload, min(context.cores, pieces), search, watch)
    seconds = time.perf_counter() - started
    best_hash, best_nonce = _checked(payload, search)
    return {
        "algorithm": payload.algorithm,
        "hashes": search.hashes,
        "seconds": round(seconds, 6),
        "hash_rate_hs": round(search.hashes / seconds, 1),
        "engine": kernel.name if kernel else "hashlib",
        "cores": 1 if on_gpu else context.cores,
        "found": search.found is not None,
        "nonce": search.found,
        "hash_hex": best_hash if search.found is not None else None,
        "best_nonce": best_nonce,
        "best_hash_hex": best_hash,
        "target_hex": f"{payload.target:064x}",
    }


def _kernel(payload: CryptoMiningPayload, count: int) -> sha256_vector.Kernel | None:
    """The LLVM kernel, if it is available, and compiled already or worth compiling."""
    if count < _WORTH_COMPILING and not sha256_vector.is_compiled():
        return None
    return sha256_vector.kernel()


class _Watch:
    """Enforces the time limit and reports the progress."""

    def __init__(self, search: Search, limit_s: float | None, started: float, context: Context) -> None:
        self._search, self._limit_s, self._started, self._context = search, limit_s, started, context
        self._reported_at = started

    def over(self) -> bool:
        now = time.perf_counter()
        passed_s = now - self._started
        if now - self._reported_at >= _PROGRESS_AFTER_S:
            self._reported_at = now
            search = self._search
            share = (search.next - search.first) / (search.end - search.first)
            by_time = passed_s / self._limit_s if self._limit_s else 0.0
            rate = search.hashes / passed_s / 1e6
            self._context.progress(min(1.0, max(share, by_time)), f"{rate:.2f} MH/s")
        # At least one piece is hashed regardless of the limit, so that there is a rate.
        return self._limit_s is not None and self._search.hashes > 0 and passed_s >= self._limit_s


def _run_threads(
    payload: CryptoMiningPayload, cores: int, kernel: sha256_vector.Kernel, search: Search, watch: _Watch
) -> None:
    """One piece per thread at a time: the compiled kernel releases the GIL."""
    with ThreadPoolExecutor(cores) as pool:
        running: dict[Future[tuple[int, int, int, bytes]], int] = {}

        def feed(thread: int) -> None:
            piece = search.take(thread)
            if piece is not None:
                running[pool.submit(kernel.scan, payload.header, *piece, payload.target)] = thread

        for thread in range(cores):
            feed(thread)
        while search.open and not watch.over():
            done, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
            for future in done:
                thread = running.pop(future)
                search.put(thread, future.result())
                feed(thread)
        # The pending pieces end within a tenth of a second, and count as well.
        for future, thread in running.items():
            search.put(thread, future.result())


class _Lane:
    """A child process that runs `sha256_lane`; it ends with this process, whose pipe it reads."""

    def __init__(self, payload: CryptoMiningPayload) -> None:
        script = str(Path(sha256_lane.__file__).resolve())
        command = [sys.executable, "-I", "-S", script, payload.header.hex(), f"{payload.target:x}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self.output = self.process.stdin, self.process.stdout

    def feed(self, piece: tuple[int, int] | None) -> None:
        """Send the next piece, (start, count)."""
        if piece is not None:
            self._input.write(f"{piece[0]} {piece[1]}\n")

    def close(self) -> None:
        """Kill the process and release its pipes."""
        self.process.kill()
        self._input.close()
        self.output.close()
        self.process.wait()


@contextmanager
def _lanes(payload: CryptoMiningPayload, count: int) -> Generator[list[_Lane], None, None]:
    """`count` lanes, closed at the end."""
    lanes = [_Lane(payload) for _ in range(count)]
    try:
        yield lanes
    finally:
        for lane in lanes:
            lane.close()


def _run_lanes(payload: CryptoMiningPayload, cores: int, search: Search, watch: _Watch) -> None:
    with _lanes(payload, cores) as lanes, selectors.DefaultSelector() as selector:
        for lane in lanes:
            selector.register(lane.output, selectors.EVENT_READ, lane)
            lane.feed(search.take(lane))
        while search.open and not watch.over():
            for key, _ in selector.select(timeout=0.1):
                lane: _Lane = key.data
                line = lane.output.readline()
                if not line:
                    raise RuntimeError(f"a hashing process ended with status {lane.process.wait()}")
                done, found, best_nonce, best = line.split()
                search.put(lane, (int(done), int(found), int(best_nonce), bytes.fromhex(best)))
                lane.feed(search.take(lane))


def _checked(payload: CryptoMiningPayload, search: Search) -> tuple[str, int]:
    """(best hash in hex, most significant byte first; its nonce), recomputed with hashlib.

    A nonce that meets the target is the best of those up to it, since all before it failed. Raises: RuntimeError.
    """
    best, nonce = search.best if search.found is None else (None, search.found)
    header = payload.header + nonce.to_bytes(4, "little")
    digest = hashlib.sha256(hashlib.sha256(header).digest()).digest()[::-1]
    meets = int.from_bytes(digest, "big") <= payload.target
    if meets is not (search.found is not None) or best not in (None, digest):
        raise RuntimeError(f"the hash of nonce {nonce} is wrong: this machine makes computing errors")
    return digest.hex(), nonce
