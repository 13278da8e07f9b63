"""The deliveries that nodes announce to hold, stored undecoded until a node dies. Bounded in bytes."""

from __future__ import annotations

import logging

from mesh import decoding
from mesh.decoding import Unreadable
from mesh.limits import Limits
from mesh.messages import Held, HeldSet

log = logging.getLogger(__name__)

#: Announcements of replaced incarnations that are kept: a leader reclaims them within a second, other nodes never do.
FORMER = 1000


class Announcements:
    """The last announcement of each node, and those of incarnations that have been replaced."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: dict[str, bytes] = {}
        self._former: dict[tuple[str, str], bytes] = {}
        self.size_bytes = 0
        """The size of all of them."""
        self._is_full = False

    def take(self, node: str, data: bytes) -> None:
        """`node` announced what it holds. Beyond the limit it is ignored."""
        size_bytes = self.size_bytes + len(data) - len(self._held.get(node, b""))
        is_new = node not in self._held
        if size_bytes > self._limits.held_bytes or (is_new and len(self._held) >= self._limits.nodes):
            if not self._is_full:
                log.warning("further announcements of held deliveries are ignored: their limit is reached (held_bytes)")
            self._is_full = True
            return
        self._held[node], self.size_bytes, self._is_full = data, size_bytes, False

    def forget(self, node: str) -> None:
        """The node is forgotten."""
        self.size_bytes -= len(self._held.pop(node, b""))

    def replaced(self, node: str, incarnation: str) -> bool:
        """A newer incarnation has replaced this one, which is dead: its deliveries are still to be reclaimed.

        Whether it had announced any.
        """
        held = self._held.pop(node, None)
        if held is None:
            return False
        if not incarnation:
            self.size_bytes -= len(held)
            return False
        if len(self._former) >= FORMER:
            self.forget_former(*next(iter(self._former)))
        self.size_bytes -= len(self._former.pop((node, incarnation), b""))
        self._former[node, incarnation] = held
        return True

    def held_by(self, node: str, incarnation: str) -> tuple[Held, ...]:
        """The deliveries that this incarnation of the node announced last."""
        held = _decoded(self._held.get(node))
        return held.held if held is not None and held.incarnation == incarnation else ()

    def former_holders(self) -> dict[tuple[str, str], tuple[Held, ...]]:
        """(node, replaced incarnation) -> the deliveries it announced; `forget_former` once they are reclaimed."""
        decoded = {key: _decoded(data) for key, data in self._former.items()}
        return {key: held.held for key, held in decoded.items() if held is not None and held.incarnation == key[1]}

    def forget_former(self, node: str, incarnation: str) -> None:
        """The deliveries of that replaced incarnation have been reclaimed."""
        self.size_bytes -= len(self._former.pop((node, incarnation), b""))


def _decoded(data: bytes | None) -> HeldSet | None:
    if data is None:
        return None
    held = decoding.held(data)
    return None if isinstance(held, Unreadable) else held
