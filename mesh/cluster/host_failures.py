"""Which nodes are starting a bus server, and which have failed to host one lately. Pure, but for what it remembers.

A server that ended by order is no failure: it was a member, and was removed because there were too few machines. Its
node may host one again at once, when there are enough. A node that is asked again while it starts its server says that
it is busy, which is no failure either.
"""

from __future__ import annotations

from collections.abc import Iterable

#: A node that could not host a bus server is not asked again for this long, seconds.
RETRY_AFTER_S = 120.0


class HostFailures:
    """The nodes that were asked to host, as one leader saw them. `start_s`: how long a node may take to begin."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._failed_at: dict[str, float] = {}
        self._began_at: dict[str, float] = {}
        self._members: set[str] = set()
        self._removed: set[str] = set()

    def observe(self, members: Iterable[str], hosts: Iterable[str]) -> None:
        """Note the servers that are in the meta group, and the nodes that have recorded a server of theirs."""
        self._members.update(members)
        for node in hosts:
            self._began_at.pop(node, None)

    def began(self, node: str, now: float) -> None:
        """The node starts a server, as it was asked to; how often it was asked makes no difference."""
        self._began_at.setdefault(node, now)

    def failed(self, node: str, now: float) -> None:
        """The node did not start, or did not stop, a server as it was asked to."""
        self._failed_at[node] = now
        self._began_at.pop(node, None)

    def stopped(self, node: str, server: str, now: float) -> None:
        """The node stopped its server by order: a failure if that server never became a member."""
        if server not in self._members:
            self.failed(node, now)
        self._members.discard(server)

    def removed(self, server: str) -> None:
        """The server was taken out of the meta group: it does not join any more, whatever its record says."""
        self._removed.add(server)

    def was_removed(self, server: str) -> bool:
        """Whether this leader has taken the server out of the meta group. Every membership has a name of its own."""
        return server in self._removed

    def is_starting(self, node: str, now: float) -> bool:
        """Whether the node starts a server that it has not recorded yet; one that takes too long has failed."""
        if now - self._began_at.get(node, now) > self._start_s:
            self.failed(node, now)
        return node in self._began_at

    def is_willing(self, node: str, now: float) -> bool:
        """Whether the node may be asked to host a server."""
        failed_at = self._failed_at.get(node)
        return failed_at is None or now - failed_at > RETRY_AFTER_S
