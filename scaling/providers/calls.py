"""Calls to providers, each within a time limit: a provider that hangs or fails leaves a note and holds up nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from mesh.errors import QueztlError

T = TypeVar("T")
log = logging.getLogger(__name__)


async def call(request: Awaitable[T], limit_s: float, what: str, notes: list[str]) -> T | None:
    """The provider's answer; None, and one more of `notes`, when it fails or takes longer than `limit_s` seconds.

    `what` names the request in the note, for example "local's list".
    """
    try:
        async with asyncio.timeout(limit_s):
            return await request
    except TimeoutError:
        notes.append(f"{what} did not come within {limit_s:g} s")
    except QueztlError as error:
        notes.append(f"{what}: {error.message}")
    except Exception as error:
        # A bug in one provider must not stop the others.
        notes.append(f"{what} failed: {' '.join(str(error).split()) or type(error).__name__}")
        log.debug("%s failed", what, exc_info=True)
    return None
