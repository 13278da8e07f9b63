"""Kills of the bus server, its witness and its node, at every point."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import nats
import psutil
import pytest

from mesh.bus.server import supervisor as server_module
from mesh.bus.server.binary import find_server
from mesh.bus.server.bootstrap import NoLeader
from mesh.bus.server.process import ServerProcess
from mesh.errors import CannotStart
from tests.integration.bus_server_harness import (
    Harness,
    _connected,
    _ignore,
    connect,
    declare,
    harness,
    lives,
    meta_size,
    publish,
    run_node,
    stored,
    until,
)

__all__ = ["harness"]


async def test_a_server_killed_under_load_loses_no_confirmed_message(harness: Harness) -> None:
    bus = harness.bus()
    await bus.start()
    client = await connect(bus)
    await declare(client)
    confirmed: set[int] = set()
    load = [asyncio.create_task(publish(client, first, first + 500, confirmed)) for first in range(0, 2000, 500)]

    async def some() -> bool:
        return len(confirmed) > 600

    await until(some)
    before = bus.pids["server"]
    os.kill(before, signal.SIGKILL)
    facts = await harness.event("server_restarted")
    assert facts["exit_code"] == -signal.SIGKILL and facts["took_s"] > 0  # 0.18 s here
    await asyncio.gather(*load)
    assert bus.pids["server"] != before
    assert await stored(client) == confirmed == set(range(2000))
    await client.close()


async def test_the_death_of_the_witness_stops_nothing_and_it_is_restarted(harness: Harness) -> None:
    bus = harness.bus()
    await bus.start()
    client = await connect(bus)
    await declare(client)
    before = bus.pids
    os.kill(before["witness"], signal.SIGKILL)
    await publish(client, 0, 20, set())
    await harness.event("witness_restarted")
    assert bus.pids["server"] == before["server"] and bus.pids["witness"] != before["witness"]
    assert await stored(client) == set(range(20))
    await client.close()


async def test_both_killed_at_once_are_restarted(harness: Harness) -> None:
    bus = harness.bus()
    await bus.start()
    client = await connect(bus)
    await declare(client)
    await publish(client, 0, 20, set())
    for pid in bus.pids.values():
        os.kill(pid, signal.SIGKILL)
    await harness.event("server_restarted")
    await until(lambda: _connected(client))
    await publish(client, 20, 40, set())
    assert await stored(client) == set(range(40))
    await client.close()


async def test_a_server_that_keeps_dying_is_restarted_with_a_delay(harness: Harness) -> None:
    bus = harness.bus()
    await bus.start()
    for _ in range(3):
        os.kill(bus.pids["server"], signal.SIGKILL)
        facts = await harness.event("server_restarted")
    assert facts["deaths"] == 3
    assert await meta_size(bus) == 1


async def test_a_killed_node_leaves_a_bus_the_next_start_takes_over(harness: Harness) -> None:
    with run_node(harness.folder, "serve") as node:
        started = json.loads(await asyncio.to_thread(node.stdout.readline))
        client = await nats.connect(started["urls"][0], allow_reconnect=False, error_cb=_ignore)
        await declare(client)
        await publish(client, 0, 100, set())
        node.kill()
        node.wait()
    bus = harness.bus()
    address = await bus.start()
    assert not any(lives(pid) for pid in started["pids"].values())
    assert list(address.client_urls) == started["urls"] and not bus.created_now
    await client.close()
    client = await connect(bus)
    assert await stored(client) == set(range(100))
    await client.close()


async def test_node_and_servers_killed_together_lose_nothing(harness: Harness) -> None:
    with run_node(harness.folder, "serve") as node:
        started = json.loads(await asyncio.to_thread(node.stdout.readline))
        client = await nats.connect(started["urls"][0], allow_reconnect=False, error_cb=_ignore)
        await declare(client)
        await publish(client, 0, 100, set())
        node.send_signal(signal.SIGSTOP)  # so that it does not restart them
        for pid in started["pids"].values():
            os.kill(pid, signal.SIGKILL)
        node.kill()
        node.wait()
    await client.close()
    bus = harness.bus()
    await bus.start()
    client = await connect(bus)
    assert await stored(client) == set(range(100))
    await client.close()


@pytest.mark.parametrize(
    ("point", "founds_again"),
    [
        ("server launched", True),
        ("boot launched", True),
        ("before the removal", True),
        ("after the removal", True),
        ("before the marker", True),
        ("after the marker", False),
    ],
)
async def test_a_bootstrap_killed_at_any_point_can_be_repeated(
    harness: Harness, point: str, founds_again: bool
) -> None:
    with run_node(harness.folder, point) as node:
        assert await asyncio.to_thread(node.wait, 30) == -signal.SIGKILL
    bus = harness.bus()
    await bus.start()
    assert bus.created_now is founds_again and await meta_size(bus) == 1
    client = await connect(bus)
    await declare(client)
    await publish(client, 0, 3, set())
    assert await stored(client) == {0, 1, 2}
    await client.close()


async def test_a_bootstrap_without_a_leader_is_retried_and_finally_abandoned(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_CREATION_TIMEOUTS_S", (0.001, 0.001))
    bus = harness.bus()
    with pytest.raises(NoLeader, match="no leader within"):
        await bus.start()
    assert not bus.pids
    monkeypatch.setattr(server_module, "_CREATION_TIMEOUTS_S", (0.001, 20.0))
    bus = harness.bus()
    await bus.start()
    assert bus.created_now and await meta_size(bus) == 1


# --- leftovers and failures ------------------------------------------------------------------------


async def test_a_leftover_server_is_ended_and_another_process_with_its_pid_is_not(tmp_path: Path) -> None:
    binary = find_server().path
    process = ServerProcess("server", binary, tmp_path)
    process.write_config(json.dumps({"listen": "127.0.0.1:-1", "log_file": str(process.log_file)}))
    server = [str(binary), "-c", str(process.config_file)]
    for arguments, ours in ((server, True), (["sleep", "60"], False)):
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as other:  # noqa: ASYNC220
            note = {"pid": other.pid, "started": psutil.Process(other.pid).create_time()}
            (tmp_path / "server.pid").write_text(json.dumps(note))
            assert await process.stop_leftover() is ours
            assert (other.poll() is not None) is ours
            other.kill()
        assert not (tmp_path / "server.pid").exists()


async def test_a_server_that_exits_at_once_is_quoted(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "nats-server"
    fake.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'nats-server: v2.15.1' && exit\n"
        "echo '[1] 2026 [FTL] the moon is too close' >&2; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("NATS_SERVER", str(fake))
    bus = harness.bus()
    with pytest.raises(CannotStart, match="the moon is too close"):
        await bus.start()
    assert not bus.pids
    monkeypatch.delenv("NATS_SERVER")
    await harness.bus().start()


@pytest.mark.parametrize("own", [True, False])
async def test_its_process_group_is_configurable(harness: Harness, own: bool) -> None:
    bus = harness.bus(own_group=own)
    await bus.start()

    async def grouped() -> bool:  # the witness may still be before its setpgid
        return all((os.getpgid(pid) == os.getpgrp()) is not own for pid in bus.pids.values())

    await until(grouped)
