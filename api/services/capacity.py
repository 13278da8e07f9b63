"""What the bridge asks of the scaler. Every method may raise BusUnavailable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class CapacityServices(Protocol):
    """The scaler: plain data in and out (the documents of api.documents.capacity)."""

    async def status(self) -> dict[str, Any]:
        """AutoscalerDoc"""

    async def forecast(self) -> dict[str, Any]:
        """ForecastsDoc"""

    async def decisions(self, limit: int) -> dict[str, Any]:
        """DecisionsDoc with at most `limit` decisions."""

    async def decision(self, number: int) -> dict[str, Any]:
        """DecisionReplayDoc. Raises: NotFound."""

    async def policy(self) -> dict[str, Any]:
        """PolicyHistoryDoc"""

    async def set_policy(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """PolicyBody -> WholePolicyDoc. Raises: BadInput with every fault, Conflict."""

    async def set_manual(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """ManualBody -> ManualSetDoc. Raises: BadInput with every fault."""

    async def clear_manual(self) -> dict[str, Any]:
        """ManualClearedDoc"""

    async def panic(self, on: bool) -> dict[str, Any]:
        """PanicDoc"""

    async def cost(self) -> dict[str, Any]:
        """CostDoc"""
