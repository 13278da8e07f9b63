"""The release of nats-py: pinned to the minor whose private names were tested, and checked before the first connect."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from mesh.bus.client import Bus
from mesh.bus.wire import NATS_PY, check_library
from mesh.errors import CannotStart

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """Clear the cached check, as in a process that has not connected yet."""
    check_library.cache_clear()
    yield
    check_library.cache_clear()


def without(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Remove a method, or an attribute that the constructor sets."""
    if hasattr(owner, name):
        monkeypatch.delattr(owner, name)
        return
    original = owner.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        delattr(self, name)

    monkeypatch.setattr(owner, "__init__", init)


def test_the_pinned_release_is_the_tested_one() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"nats-py{NATS_PY}" in dependencies


def test_the_installed_release_has_all_names() -> None:
    check_library()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Client, "_send_ping"),
        (Client, "_process_msg"),
        (Client, "_pending"),
        (Client, "_flush_queue"),
        (Client, "_ps"),
        (Client, "_server_pool"),
        (Parser, "parse"),
        (Subscription, "_id"),
        (TcpTransport, "_bare_io_writer"),
    ],
)
async def test_a_missing_name_is_one_sentence_with_the_release_to_install(monkeypatch, owner, name) -> None:
    without(monkeypatch, owner, name)
    with pytest.raises(CannotStart) as refused:
        await Bus.connect(["nats://127.0.0.1:1"], name="x")
    sentence = refused.value.message
    assert f"has no {owner.__name__}.{name}," in sentence and sentence.endswith("install nats-py>=2.16,<2.17")
    assert "\n" not in sentence
