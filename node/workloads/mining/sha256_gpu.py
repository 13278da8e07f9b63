"""SHA-256d of a few hundred million nonces at a time on a GPU: PyTorch's memory, a kernel in Triton.

The kernel only looks for nonces whose hash has a small most significant word; each of them is hashed again by
`sha256_lane`, which alone decides. No GPU has run it yet: tests run the same kernel in Triton's interpreter against
hashlib, and compile it for two processors of NVIDIA's.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from functools import cache

from mesh.kinds.crypto_mining import GENESIS_HEADER_HEX, GENESIS_NONCE
from node.workloads.mining import sha256_lane
from node.workloads.mining.sha256_vector import ROUND, START

#: Nonces of one launch: a tenth of a second or so, so that an end is noticed soon.
PIECE = 1 << 28
#: Hits that a launch can tell, and how many are aimed at: fewer would be none now and then, and mean a second launch.
CAPACITY = 4096
_AIM = 64
#: Fewer nonces than this are not worth a launch.
_WORTH_LAUNCHING = 1 << 14
_TRIAL = 1 << 15
_MASK = 0xFFFFFFFF


class Unusable(ImportError):
    """This node's GPU can't be used for hashing"""


class NoGpu(ImportError):
    """This node has no GPU that Triton can use; ask for one with requires {"accelerator": "cuda"}."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@cache
def kernel() -> Gpu:
    """The one of this process, made on first use: half a minute at worst.

    Raises: NoGpu; ImportError without torch or triton; Unusable when it can't be made, or computes wrongly.
    """
    import torch

    if not torch.cuda.is_available():
        raise NoGpu
    made = Gpu("cuda", torch.cuda.get_device_name())
    try:
        made.try_out()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # no C compiler, a driver that is too old, …
        raise Unusable(f"{Unusable.__doc__} ({type(error).__name__}: {error})") from error
    return made


class Gpu:
    """The kernel on one device; for one thread at a time."""

    def __init__(self, device: str, device_name: str, block: int = 128) -> None:
        """`block`: nonces of one program, by default one a thread. Raises: ImportError without torch or triton."""
        import torch

        from node.workloads.mining import sha256_triton

        self._torch, self._search, self._device, self._block = torch, sha256_triton.search, device, block
        self.name = f"gpu, {device_name}"

    def scan(self, header: bytes, start: int, count: int, target: int) -> tuple[int, int, int, bytes]:
        """What `sha256_lane.scan` gives for the same arguments."""
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
        limit = max(target >> 224, (_AIM << 32) // count)
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
        """The nonces whose hash begins with at most `limit`. Raises: RuntimeError when there are too many to tell."""
        torch = self._torch
        words = torch.tensor(_signed(message(header, start, limit)), dtype=torch.int32, device=self._device)
        hits = torch.zeros(1 + CAPACITY, dtype=torch.int32, device=self._device)
        self._search[(-(-count // self._block),)](words, hits, count, CAPACITY=CAPACITY, BLOCK=self._block)
        found = [hit & _MASK for hit in hits.tolist()]
        if found[0] > CAPACITY:
            raise RuntimeError(f"the GPU found {found[0]} hashes under a limit that {_AIM} or so are expected under")
        return found[1 : 1 + found[0]]

    def try_out(self) -> None:
        """A nonce it overlooked would never be seen: so it must find those that are known. Raises: RuntimeError."""
        header, start = bytes.fromhex(GENESIS_HEADER_HEX)[:76], GENESIS_NONCE - _TRIAL + 1
        for target in (0, (1 << 248) - 1, (1 << 224) - 1):
            if self.scan(header, start, _TRIAL, target) != sha256_lane.scan(header, start, _TRIAL, target):
                raise RuntimeError("this GPU does not hash as SHA-256 does")


def launch_size(target: int) -> int:
    """Nonces of a launch of which about a sixteenth of CAPACITY at most meet `target` (pure)."""
    return (CAPACITY // 16 << 32) // ((target >> 224) + 1)


def message(header: bytes, start: int, limit: int) -> list[int]:
    """The words the kernel is given; see there (pure)."""
    words = struct.unpack(">19I", header)
    return [*START, *midstate(words[:16]), *words[16:], start, *ROUND, limit]


def midstate(block: Sequence[int]) -> list[int]:
    """SHA-256's state after one block of 16 words (pure)."""
    w, state = list(block), list(START)
    for t in range(64):
        if t >= 16:
            p, q = w[t - 15], w[t - 2]
            low = _turn(p, 7) ^ _turn(p, 18) ^ p >> 3
            high = _turn(q, 17) ^ _turn(q, 19) ^ q >> 10
            w.append((w[t - 16] + low + w[t - 7] + high) & _MASK)
        a, b, c, d, e, f, g, h = state
        first = h + (_turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25)) + (g ^ e & (f ^ g)) + w[t] + ROUND[t]
        second = (_turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22)) + (a & b | c & (a | b))
        state = [(first + second) & _MASK, a, b, c, (d + first) & _MASK, e, f, g]
    return [(old + new) & _MASK for old, new in zip(START, state, strict=True)]


def _turn(x: int, bits: int) -> int:
    return (x >> bits | x << 32 - bits) & _MASK


def _signed(words: list[int]) -> list[int]:
    """The same bits as PyTorch's 32-bit integers, which have a sign."""
    return [word - (1 << 32) if word >> 31 else word for word in words]
