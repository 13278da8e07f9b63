"""The seam between the scaler and whatever starts machines: what every provider promises, and how it refuses.

`tests/contract/test_providers.py` holds every provider to this. None of them decides anything, none remembers anything
that its own list would not tell again: the mesh keeps the intents, the provider's own tags say what is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mesh.errors import QueztlError
from scaling.domain.model import Offer

STARTING, RUNNING, ENDING = "starting", "running", "ending"


@dataclass(frozen=True, slots=True)
class Order:
    """One node to start. The same token given twice starts one node only."""

    token: str
    """The client token: made by the scaler, written down before the call. Letters and digits, at most 32."""
    offer: str
    """Id of one of the provider's offers."""
    mesh_id: str
    mesh_name: str
    join: tuple[str, ...]
    """URLs by which the node finds the mesh."""
    expires_at: float
    """Unix seconds: an instance that has not joined by then is nobody's, and whoever sweeps ends it."""
    dead_man_s: float = 300.0
    """A node that has not reached the mesh for so long ends itself."""
    region: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels the node is to carry, beside the token."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Something a provider runs for this mesh, by its own tags."""

    id: str
    """What `terminate` takes."""
    token: str
    """The client token of the order it came from; "" when its tags are lost."""
    mesh_id: str
    offer: str = ""
    state: str = RUNNING
    """starting, running or ending"""
    launched_at: float = 0.0
    """Unix seconds"""
    expires_at: float = 0.0
    price_usd_h: float = 0.0
    ending_at: float = 0.0
    """Unix seconds when the provider takes it away by itself, where it has announced that; else 0."""


@runtime_checkable
class Provider(Protocol):
    """Starts and ends nodes. Any method may raise ProviderUnavailable; callers bring their own time limits."""

    name: str
    paid: bool
    """Whether what it starts costs money."""
    place: str
    """What its list covers: "" for everything it ever started for the mesh, else one machine by its name."""

    async def offers(self) -> tuple[Offer, ...]:
        """What can be had now; empty when nothing can."""

    async def launch(self, order: Order) -> Instance:
        """Start one node; returns once the provider has taken the order, not when the node has joined.

        Given a token again it returns the instance of that token. Raises: NoCapacity, LaunchRefused (nothing was
        started), ProviderUnavailable (unknown: `list` tells, later).
        """

    async def list(self, mesh_id: str) -> tuple[Instance, ...]:
        """Everything there is of that mesh at `place`, whoever started it. Never something of another mesh."""

    async def terminate(self, instance: str) -> None:
        """Begin to end it; an id that is gone is no error. It has ended when `list` no longer tells of it."""


# --- how a provider refuses ------------------------------------------------------------------------


class ProviderError(QueztlError):
    """The provider did not do what it was asked."""

    code = "provider"


class NoCapacity(ProviderError):
    """There is none of that offer to be had right now; another offer, or later."""


class LaunchRefused(ProviderError):
    """The provider refuses the order for good; its sentence says what to change."""


class ProviderUnavailable(ProviderError):
    """The provider does not answer; whether the last order was carried out is not known."""
