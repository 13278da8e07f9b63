"""Which nodes have failed to host a bus server lately. Pure, but for what it remembers.

A server that ended by order is no failure: it was a member, and was removed because there were too few machines. Its
node may host one again at once, when there are enough.
"""

from __future__ import annotations

from collections.abc import Iterable

#: A node that could not host a bus server is not asked again for this long, seconds.
RETRY_AFTER_S = 120.0


class HostFailures:
    """The failures of the nodes, as one leader saw them."""

    def __init__(self) -> None:
        self._failed_at: dict[str, float] = {}
        self._members: set[str] = set()

    def saw_members(self, servers: Iterable[str]) -> None:
        """Note the servers that are in the meta group."""
        self._members.update(servers)

    def failed(self, node: str, now: float) -> None:
        """The node did not start, or did not stop, a server as it was asked to."""
        self._failed_at[node] = now

    def stopped(self, node: str, server: str, now: float) -> None:
        """The node stopped its server by order: a failure if that server never became a member."""
        if server not in self._members:
            self.failed(node, now)
        self._members.discard(server)

    def is_willing(self, node: str, now: float) -> bool:
        """Whether the node may be asked to host a server."""
        failed_at = self._failed_at.get(node)
        return failed_at is None or now - failed_at > RETRY_AFTER_S
