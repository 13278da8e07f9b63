"""Giving orders to providers: written down first, checked last, and never waited for by the loop that decides.

What a provider did when its answer is missing is not guessed here: the order stays as written, and
`scaling/observation/reconcile.py` finds out from the provider's list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mesh.bus.errors import WrongSequence
from mesh.capacity import TOKEN_LABEL
from mesh.errors import QueztlError
from scaling.providers.base import LaunchRefused, NoCapacity, Order, Provider
from scaling.state.orders import LAUNCHED, Intent

if TYPE_CHECKING:
    from scaling.state.store import Store

log = logging.getLogger(__name__)


class Launcher:
    """The orders of one term as master. `close()` when it ends: what is under way is left to the next one."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        fence: int,
        confirm: Callable[[], Awaitable[int]],
        mesh: tuple[str, str],
        join: Callable[[], tuple[str, ...]],
    ) -> None:
        """`confirm`: the fence after the lease was read again; `mesh`: (id, name); `join`: where the bus is now."""
        self._store, self._providers, self._fence, self._confirm = store, providers, fence, confirm
        self._mesh, self._join = mesh, join
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failed: list[str] = []
        """Offers that refused since somebody looked."""

    async def order(self, intent: Intent, limit_s: float, dead_man_s: float) -> bool:
        """Write it down and give the order in the background; False: this node is not master any more.

        Raises: WrongSequence, BusUnavailable; then nothing was ordered.
        """
        if await self._confirm() != self._fence:
            return False
        await self._store.create(intent)
        await self._store.emit("scaling.intended", {"token": intent.token, "offer": intent.offer}, fence=self._fence)
        task = asyncio.create_task(self._launch(intent, limit_s, dead_man_s), name=f"launch {intent.token}")
        self._tasks[intent.token] = task
        task.add_done_callback(lambda _: self._tasks.pop(intent.token, None))
        return True

    def is_under_way(self, token: str) -> bool:
        """Whether its provider has not answered yet: until then nobody else here touches that order."""
        return token in self._tasks

    async def _launch(self, intent: Intent, limit_s: float, dead_man_s: float) -> None:
        order = Order(
            intent.token, intent.offer, *self._mesh, self._join(), intent.expires_at, dead_man_s, intent.region,
            {} if intent.market == "own" else {"market": intent.market},
        )  # fmt: skip
        try:
            # Between the order's being written and now another node may have become master.
            if await self._confirm() != self._fence:
                return
            async with asyncio.timeout(limit_s):
                instance = await self._providers[intent.provider].launch(order)
            await self._store.update(replace(intent, state=LAUNCHED, instance=instance.id))
            detail = {TOKEN_LABEL: intent.token, "offer": intent.offer, "instance": instance.id}
            await self._store.emit("scaling.launched", detail, fence=self._fence)
        except (NoCapacity, LaunchRefused) as refusal:
            await self._refused(intent, refusal.message)
        except WrongSequence:
            log.debug("order %s was looked after by somebody else meanwhile", intent.token)
        except TimeoutError:
            log.warning("%s did not answer within %g s; its list will tell", intent.provider, limit_s)
        except QueztlError as error:
            log.warning("order %s of %s: %s", intent.token, intent.offer, error.message)
        except Exception as error:
            # A provider's own mistake: whether something was started, its list tells.
            log.warning("order %s of %s failed: %s", intent.token, intent.offer, error)
            log.debug("in %s", intent.provider, exc_info=True)

    async def _refused(self, intent: Intent, why: str) -> None:
        self.failed.append(intent.offer)
        log.warning("%s refused to start %s: %s", intent.provider, intent.offer, why)
        try:
            await self._store.forget(intent.token)
            detail = {TOKEN_LABEL: intent.token, "offer": intent.offer, "why": why}
            await self._store.emit("scaling.refused", detail, fence=self._fence)
        except QueztlError as error:
            log.debug("order %s is cleared away later: %s", intent.token, error.message)

    def take_failed(self) -> tuple[str, ...]:
        """An offer for each refusal since this was last asked."""
        taken, self.failed = tuple(self.failed), []
        return taken

    async def close(self) -> None:
        """Stop waiting for answers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
