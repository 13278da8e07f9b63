"""How a range of nonces is cut into tasks, and what their results say together. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.errors import BadInput, Fault
from mesh.kinds.crypto_mining import CryptoMiningPayload
from mesh.kinds.table import validate

KIND = "crypto_mining"
#: The first tasks: some seconds for the slowest node, nothing for a fast one.
FIRST_COUNT = 1 << 23
#: How long a task shall run: long beside what a task costs, short beside what a dead node costs.
TASK_S = 4.0


@dataclass(frozen=True)
class Part:
    """The nonces of one task: `count` of them from `start` on."""

    start: int
    count: int


@dataclass
class Range:
    """What is still to be given out."""

    next: int
    end: int
    rate_hs: float = 0.0
    """Hashes a second of the last task that ended; 0: none has."""

    def take(self) -> Part | None:
        """The next task's nonces; None when all are given out."""
        if self.next >= self.end:
            return None
        wanted = int(self.rate_hs * TASK_S) or FIRST_COUNT
        part = Part(self.next, min(wanted, self.end - self.next))
        self.next += part.count
        return part


@dataclass
class Mined:
    """What is known of a search over the mesh."""

    total: int
    """Nonces of the range."""
    hashes: int = 0
    parts: int = 0
    """Tasks that gave their result."""
    nonce: int | None = None
    hash_hex: str | None = None
    """of `nonce`"""
    best: tuple[str, int] = ("g", 0)
    """(hash in hex, most significant byte first; its nonce): the lowest one; every hash is lower than "g"."""

    def take_in(self, result: Mapping[str, Any]) -> None:
        """One task's result."""
        self.hashes += result["hashes"]
        self.parts += 1
        self.best = min(self.best, (result["best_hash_hex"], result["best_nonce"]))
        if result["found"] and self.nonce is None:
            self.nonce, self.hash_hex = result["nonce"], result["best_hash_hex"]


def checked(payload: Any) -> CryptoMiningPayload:
    """The payload of the whole search. Raises: BadInput."""
    whole = validate(KIND, payload)
    assert isinstance(whole, CryptoMiningPayload)
    if whole.seconds is not None:
        fault = Fault("payload.seconds", "must be left out: the range of nonces says how much is searched")
        raise BadInput(f"The search can't be split: {fault.field} {fault.problem}.", (fault,))
    return whole


def is_right(payload: CryptoMiningPayload, result: Mapping[str, Any], part: Part) -> bool:
    """Whether a task's result is what it says: its hash is the nonce's, the nonce its own, the target met or not."""
    try:
        return _is_right(payload, result, part)
    except (KeyError, TypeError, AttributeError, OverflowError):
        return False


def _is_right(payload: CryptoMiningPayload, result: Mapping[str, Any], part: Part) -> bool:
    nonce = result["best_nonce"]
    once = hashlib.sha256(payload.header + nonce.to_bytes(4, "little")).digest()
    digest = hashlib.sha256(once).digest()[::-1]
    meets = int.from_bytes(digest, "big") <= payload.target
    return (
        part.start <= nonce < part.start + part.count
        and digest.hex() == result["best_hash_hex"]
        and meets is result["found"]
        and (result["nonce"] == nonce if meets else result["hashes"] == part.count)
    )
