"""Splits a range of nonces into tasks, and checks and merges their results (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.errors import BadInput, Fault
from mesh.kinds.crypto_mining import CryptoMiningPayload
from mesh.kinds.table import validate

KIND = "crypto_mining"
#: Nonces of the first tasks: a few seconds on the slowest node, an instant on a fast one.
FIRST_COUNT = 1 << 23
#: Intended run time of a task: much longer than the overhead of a task, and little to repeat when a node dies.
TASK_S = 4.0


@dataclass(frozen=True)
class Part:
    """The nonces of one task: `count` of them from `start` on."""

    start: int
    count: int


@dataclass
class Range:
    """The nonces that no task has yet."""

    next: int
    end: int
    rate_hs: float = 0.0
    """Hashes per second of the last task that ended; 0: none has ended."""

    def take(self) -> Part | None:
        """Remove and return the nonces of the next task; None when none are left."""
        if self.next >= self.end:
            return None
        count = int(self.rate_hs * TASK_S) or FIRST_COUNT
        part = Part(self.next, min(count, self.end - self.next))
        self.next += part.count
        return part


@dataclass
class SearchResult:
    """The merged results of the tasks of a search."""

    total: int
    """Number of nonces in the range."""
    hashes: int = 0
    parts: int = 0
    """Number of merged results."""
    nonce: int | None = None
    """A nonce that meets the target."""
    hash_hex: str | None = None
    """The hash of `nonce`."""
    best: tuple[str, int] = ("g", 0)
    """The lowest (hash in hex, most significant byte first; its nonce); "g" is above every hash."""

    def add(self, result: Mapping[str, Any]) -> None:
        """Merge the result of one task."""
        self.hashes += result["hashes"]
        self.parts += 1
        self.best = min(self.best, (result["best_hash_hex"], result["best_nonce"]))
        if result["found"] and self.nonce is None:
            self.nonce, self.hash_hex = result["nonce"], result["best_hash_hex"]


def checked(payload: Any) -> CryptoMiningPayload:
    """The validated payload of the whole search. Raises: BadInput."""
    whole = validate(KIND, payload)
    assert isinstance(whole, CryptoMiningPayload)
    if whole.seconds is not None:
        fault = Fault("payload.seconds", "must be left out: the range of nonces determines the search")
        raise BadInput(f"The search can't be split: {fault.field} {fault.problem}.", (fault,))
    return whole


def is_right(payload: CryptoMiningPayload, result: Mapping[str, Any], part: Part) -> bool:
    """Return whether a task's result is correct: the hash, that the nonce is in the part, and whether it meets the
    target."""
    try:
        return _is_right(payload, result, part)
    except (KeyError, TypeError, AttributeError, OverflowError):
        return False


def _is_right(payload: CryptoMiningPayload, result: Mapping[str, Any], part: Part) -> bool:
    nonce = result["best_nonce"]
    inner = hashlib.sha256(payload.header + nonce.to_bytes(4, "little")).digest()
    digest = hashlib.sha256(inner).digest()[::-1]
    meets = int.from_bytes(digest, "big") <= payload.target
    return (
        part.start <= nonce < part.start + part.count
        and digest.hex() == result["best_hash_hex"]
        and meets is result["found"]
        and (result["nonce"] == nonce if meets else result["hashes"] == part.count)
    )
