"""A node whose bus is between two states tries to start again; one that can't start ends at once."""

from __future__ import annotations

import asyncio

import pytest

from mesh.bus.errors import api_error
from mesh.errors import CannotStart, QueztlError
from node import main
from node.config import NodeConfig
from node.context import Shutdown

OFFLINE = api_error({"code": 500, "err_code": 10119, "description": "consumer is offline"})


class Signals:
    """No signal has come."""

    def __init__(self) -> None:
        self.received, self.first, self.node = 0, asyncio.Event(), None


def nodes(monkeypatch: pytest.MonkeyPatch, *outcomes: QueztlError | None) -> list[QueztlError | None]:
    """Each node that is made starts with the next of `outcomes`; what is left is returned."""
    left = list(outcomes)

    class Node:
        def __init__(self, config: NodeConfig) -> None:
            self.shutdown = Shutdown()

        async def start(self) -> None:
            if (error := left.pop(0)) is not None:
                raise error

    monkeypatch.setattr(main, "Node", Node)
    monkeypatch.setattr(main, "START_AGAIN_S", 0.0)
    return left


async def test_a_bus_between_two_states_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = nodes(monkeypatch, OFFLINE, OFFLINE, None)
    assert await main._start(NodeConfig(), Signals()) is not None and not left


async def test_what_can_not_start_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = nodes(monkeypatch, CannotStart("the port is taken"), None)
    with pytest.raises(CannotStart, match="taken"):
        await main._start(NodeConfig(), Signals())
    assert left == [None]


async def test_the_wait_has_a_limit_and_the_last_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, OFFLINE, OFFLINE)
    monkeypatch.setattr(main, "START_WITHIN_S", -1.0)
    with pytest.raises(CannotStart, match="consumer is offline"):
        await main._start(NodeConfig(), Signals())


async def test_a_signal_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, *[OFFLINE] * 50)
    signals = Signals()
    asyncio.get_running_loop().call_later(0.05, signals.first.set)
    monkeypatch.setattr(main, "START_AGAIN_S", 1.0)
    assert await main._start(NodeConfig(), signals) is None
