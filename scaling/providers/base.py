"""The interface between the scaler and whatever starts machines: what every provider promises, and how it refuses.

`tests/contract/test_providers.py` holds every provider to this. A provider decides nothing, and remembers nothing that
its own list does not show: the mesh keeps the orders, and the provider's tags say which instances belong to the mesh.
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
    """The client token: made by the scaler and stored before the call. Letters and digits, at most 32."""
    offer: str
    """Id of one of the provider's offers."""
    mesh_id: str
    mesh_name: str
    join: tuple[str, ...]
    """URLs at which the node finds the mesh."""
    expires_at: float
    """Unix seconds: an instance that has not joined by then belongs to nobody, and the sweep ends it."""
    dead_man_s: float = 300.0
    """A node that has not reached the mesh for this long ends itself."""
    region: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    """Labels of the node, beside the token."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Something a provider runs for the mesh, as its tags tell."""

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
    """Unix seconds at which the provider takes it away, where it has announced that; else 0."""


@runtime_checkable
class Provider(Protocol):
    """Starts and ends nodes. Any method may raise ProviderUnavailable; callers set the time limits."""

    name: str
    paid: bool
    """Whether what it starts costs money."""
    place: str
    """What its list covers: "" for everything it ever started for the mesh, else the name of one machine."""

    async def offers(self) -> tuple[Offer, ...]:
        """What can be started now; empty when nothing can."""

    async def launch(self, order: Order) -> Instance:
        """Start one node; returns once the provider has taken the order, before the node has joined.

        A token that was given before returns its instance. Raises: NoCapacity, LaunchRefused (nothing was started),
        ProviderUnavailable (unknown: a later `list` tells).
        """

    async def list(self, mesh_id: str) -> tuple[Instance, ...]:
        """All instances of that mesh at `place`, whoever started them; never one of another mesh."""

    async def terminate(self, instance: str) -> None:
        """Begin to end it; an id that is gone is no error. It has ended when `list` no longer shows it."""


# --- how a provider refuses ------------------------------------------------------------------------


class ProviderError(QueztlError):
    """The provider did not do what it was asked to do."""

    code = "provider"


class NoCapacity(ProviderError):
    """The provider has none of that offer right now; another offer may work, or a later attempt."""


class LaunchRefused(ProviderError):
    """The provider refuses the order for good; the message says what to change."""


class ProviderUnavailable(ProviderError):
    """The provider does not answer; whether it carried out the last order is unknown."""
