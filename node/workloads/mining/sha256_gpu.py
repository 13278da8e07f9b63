"""Double SHA-256 of a few hundred million nonces at a time on a GPU, with PyTorch's memory and a Triton kernel.

The kernel only selects nonces whose hash has a small most significant word; `sha256_lane` hashes each of them again
and alone decides. No GPU has run it yet: tests run the same kernel in Triton's interpreter against hashlib, and compile
it for two NVIDIA processors.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from functools import cache

from mesh.kinds.crypto_mining import GENESIS_HEADER_HEX, GENESIS_NONCE
from node.workloads.mining import sha256_lane
from node.workloads.mining.sha256_vector import ROUND, START

#: Nonces of one launch: about a tenth of a second, so that the search stops soon.
PIECE = 1 << 28
#: The number of hits that a launch can return, and the number to expect: with fewer, a launch would sometimes find none
#: and have to be repeated.
CAPACITY = 4096
_EXPECTED_HITS = 64
#: With fewer nonces than this, the CPU is faster than a launch.
_WORTH_LAUNCHING = 1 << 14
#: Nonces of the self-test.
_TRIAL = 1 << 15
_MASK = 0xFFFFFFFF


class Unusable(ImportError):
    """This node's GPU can't be used for hashing"""


class NoGpu(ImportError):
    """This node has no GPU that Triton can use; require one with {"accelerator": "cuda"}."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@cache
def kernel() -> Gpu:
    """The kernel of this process, compiled on first use, which takes up to half a minute.

    Raises: NoGpu; ImportError without torch or triton; Unusable when it can't be compiled or fails its self-test.
    """
    import torch

    if not torch.cuda.is_available():
        raise NoGpu
    gpu = Gpu("cuda", torch.cuda.get_device_name())
    try:
        gpu.self_test()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # no C compiler, an old driver, …
        raise Unusable(f"{Unusable.__doc__} ({type(error).__name__}: {error})") from error
    return gpu


class Gpu:
    """The kernel on one device; not thread-safe."""

    def __init__(self, device: str, device_name: str, block: int = 128) -> None:
        """`block`: nonces per program; the default is one per thread. Raises: ImportError without torch or triton."""
        import torch

        from node.workloads.mining import sha256_triton

        self._torch, self._search, self._device, self._block = torch, sha256_triton.search, device, block
        self.name = f"gpu, {device_name}"

    def scan(self, header: bytes, start: int, count: int, target: int) -> tuple[int, int, int, bytes]:
        """The result of `sha256_lane.scan` for the same arguments."""
        best, done = (b"\xff" * 33, start), 0
        while done < count:
            left, at = count - done, start + done
            piece = min(left, PIECE, launch_size(target))
            if piece < _WORTH_LAUNCHING:
                tried, found, nonce, value = sha256_lane.scan(header, at, min(left, _WORTH_LAUNCHING), target)
            else:
                tried, found, nonce, value = self._piece(header, at, piece, target)
            best, done = min(best, (value, nonce)), done + tried
            if found >= 0:
                return done, found, nonce, value
        return done, -1, best[1], best[0]

    def _piece(self, header: bytes, start: int, count: int, target: int) -> tuple[int, int, int, bytes]:
        limit = max(target >> 224, (_EXPECTED_HITS << 32) // count)
        hits = self._hits(header, start, count, limit)
        while not hits:
            limit = min(_MASK, limit * 4 + 3)
            hits = self._hits(header, start, count, limit)
        best = (b"\xff" * 33, start)
        for hit in sorted(hits):
            _, found, nonce, value = sha256_lane.scan(header, hit, 1, target)
            if found >= 0:
                return found - start + 1, found, nonce, value
            best = min(best, (value, nonce))
        return count, -1, best[1], best[0]

    def _hits(self, header: bytes, start: int, count: int, limit: int) -> list[int]:
        """The nonces whose hash has a most significant word of at most `limit`. Raises: RuntimeError for too many."""
        torch = self._torch
        words = torch.tensor(_signed(message(header, start, limit)), dtype=torch.int32, device=self._device)
        hits = torch.zeros(1 + CAPACITY, dtype=torch.int32, device=self._device)
        self._search[(-(-count // self._block),)](words, hits, count, CAPACITY=CAPACITY, BLOCK=self._block)
        found = [hit & _MASK for hit in hits.tolist()]
        if found[0] > CAPACITY:
            raise RuntimeError(
                f"the GPU found {found[0]} hashes below the limit, where about {_EXPECTED_HITS} are expected"
            )
        return found[1 : 1 + found[0]]

    def self_test(self) -> None:
        """Check that it finds known nonces, since a nonce it missed would go unnoticed. Raises: RuntimeError."""
        header, start = bytes.fromhex(GENESIS_HEADER_HEX)[:76], GENESIS_NONCE - _TRIAL + 1
        for target in (0, (1 << 248) - 1, (1 << 224) - 1):
            if self.scan(header, start, _TRIAL, target) != sha256_lane.scan(header, start, _TRIAL, target):
                raise RuntimeError("this GPU computes wrong SHA-256 hashes")


def launch_size(target: int) -> int:
    """The nonces of a launch such that at most about a sixteenth of CAPACITY meet `target` (pure)."""
    return (CAPACITY // 16 << 32) // ((target >> 224) + 1)


def message(header: bytes, start: int, limit: int) -> list[int]:
    """The argument `words` of the kernel `sha256_triton.search` (pure)."""
    words = struct.unpack(">19I", header)
    return [*START, *midstate(words[:16]), *words[16:], start, *ROUND, limit]


def midstate(block: Sequence[int]) -> list[int]:
    """The SHA-256 state after one block of 16 words (pure)."""
    w, state = list(block), list(START)
    for t in range(64):
        if t >= 16:
            p, q = w[t - 15], w[t - 2]
            low = _rotate(p, 7) ^ _rotate(p, 18) ^ p >> 3
            high = _rotate(q, 17) ^ _rotate(q, 19) ^ q >> 10
            w.append((w[t - 16] + low + w[t - 7] + high) & _MASK)
        a, b, c, d, e, f, g, h = state
        first = h + (_rotate(e, 6) ^ _rotate(e, 11) ^ _rotate(e, 25)) + (g ^ e & (f ^ g)) + w[t] + ROUND[t]
        second = (_rotate(a, 2) ^ _rotate(a, 13) ^ _rotate(a, 22)) + (a & b | c & (a | b))
        state = [(first + second) & _MASK, a, b, c, (d + first) & _MASK, e, f, g]
    return [(old + new) & _MASK for old, new in zip(START, state, strict=True)]


def _rotate(x: int, bits: int) -> int:
    return (x >> bits | x << 32 - bits) & _MASK


def _signed(words: list[int]) -> list[int]:
    """The same bits as signed 32-bit integers, the type that PyTorch has."""
    return [word - (1 << 32) if word >> 31 else word for word in words]
