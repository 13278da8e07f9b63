"""Launches ordered nodes: stores the order, checks the lease, calls the provider. The control loop never waits for it.

When the provider's answer is missing, the launcher does not guess: the order stays as stored, and
`scaling/observation/reconcile.py` finds out from the provider's list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from mesh.bus.errors import WrongSequence
from mesh.capacity import TOKEN_LABEL
from mesh.errors import QueztlError
from scaling.domain.model import OWN
from scaling.providers.base import LaunchRefused, NoCapacity, Order, Provider
from scaling.state.orders import LAUNCHED, Intent
from scaling.state.store import Store

log = logging.getLogger(__name__)


class Launcher:
    """The launches of one term as leader. `close()` ends the term: pending launches are left to the next leader."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        fence: int,
        confirm_lease: Callable[[], Awaitable[int]],
        mesh_id: str,
        mesh_name: str,
        join_urls: Callable[[], tuple[str, ...]],
    ) -> None:
        """`confirm_lease`: reads the lease again, returns the fence; `join_urls`: where the bus is now."""
        self._store, self._providers, self._fence, self._confirm_lease = store, providers, fence, confirm_lease
        self._mesh_id, self._mesh_name, self._join_urls = mesh_id, mesh_name, join_urls
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: list[str] = []

    async def order(self, intent: Intent, limit_s: float, dead_man_s: float) -> bool:
        """Store the order and launch in the background; False: this node is no longer the leader.

        `limit_s`: time limit of the provider's call. Raises: WrongSequence, BusUnavailable; then nothing was ordered.
        """
        if await self._confirm_lease() != self._fence:
            return False
        await self._store.create(intent)
        await self._store.emit("scaling.intended", {"token": intent.token, "offer": intent.offer}, fence=self._fence)
        task = asyncio.create_task(self._launch(intent, limit_s, dead_man_s), name=f"launch {intent.token}")
        self._tasks[intent.token] = task
        task.add_done_callback(lambda _: self._tasks.pop(intent.token, None))
        return True

    def is_pending(self, token: str) -> bool:
        """Whether the provider has not answered yet: until then nothing else here touches the order."""
        return token in self._tasks

    async def _launch(self, intent: Intent, limit_s: float, dead_man_s: float) -> None:
        labels: dict[str, str] = {} if intent.market == OWN else {"market": intent.market}
        order = Order(
            intent.token, intent.offer, self._mesh_id, self._mesh_name, self._join_urls(), intent.expires_at,
            dead_man_s, intent.region, labels,
        )  # fmt: skip
        try:
            # Another node may have become the leader since the order was stored.
            if await self._confirm_lease() != self._fence:
                return
            async with asyncio.timeout(limit_s):
                instance = await self._providers[intent.provider].launch(order)
            await self._store.update(replace(intent, state=LAUNCHED, instance=instance.id))
            detail = {TOKEN_LABEL: intent.token, "offer": intent.offer, "instance": instance.id}
            await self._store.emit("scaling.launched", detail, fence=self._fence)
        except (NoCapacity, LaunchRefused) as refusal:
            await self._on_refused(intent, refusal.message)
        except WrongSequence:
            log.debug("another leader has updated the order %s meanwhile", intent.token)
        except TimeoutError:
            log.warning(
                "provider %s did not answer within %g s; its list will show the result", intent.provider, limit_s
            )
        except QueztlError as error:
            log.warning("launch of order %s (%s): %s", intent.token, intent.offer, error.message)
        except Exception as error:
            # A bug in the provider: its list shows whether something was started.
            log.warning("launch of order %s (%s) failed: %s", intent.token, intent.offer, error)
            log.debug("in provider %s", intent.provider, exc_info=True)

    async def _on_refused(self, intent: Intent, why: str) -> None:
        self._failed.append(intent.offer)
        log.warning("provider %s refused to start %s: %s", intent.provider, intent.offer, why)
        try:
            await self._store.forget(intent.token)
            detail = {TOKEN_LABEL: intent.token, "offer": intent.offer, "why": why}
            await self._store.emit("scaling.refused", detail, fence=self._fence)
        except QueztlError as error:
            log.debug("the refused order %s is removed later: %s", intent.token, error.message)

    def take_failed(self) -> tuple[str, ...]:
        """The offer of each refusal since the last call."""
        taken = tuple(self._failed)
        self._failed.clear()
        return taken

    async def close(self) -> None:
        """Stop waiting for answers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
