"""Three machines (network namespaces on one switch) that find each other by multicast with nothing configured."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lan.conftest import COUNT

ROOT = Path(__file__).parents[2]
WITHIN_S = 30

#: Runs on each machine: find the mesh or create it, see the other two, print that, and wait to be ended.
MACHINE = """
import asyncio, json, sys
from mesh.discovery.announcement import MEMBER, Announcement
from mesh.discovery.founding import Create, LocalNode
from mesh.config import LAN
from mesh.discovery.mdns import Discovery
from mesh.discovery.join import find_mesh
from mesh.discovery.interfaces import usable_addresses

async def main(name, count):
    choice = usable_addresses()
    discovery = Discovery(choice.addresses)
    await discovery.start()
    step = await find_mesh(discovery, LocalNode(name, "lan-test"), LAN, say=lambda sentence: None)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), choice.addresses[0], 4222)
    urls = (f"nats://{choice.addresses[0]}:4222",) if isinstance(step, Create) else step.urls
    await discovery.announce(Announcement("lan-test", "m1", "", name, urls, MEMBER))
    while len([peer for peer in discovery.peers() if peer.role == MEMBER]) < count - 1:
        await discovery.changed(60)
    peers = [peer.node_id for peer in discovery.peers()]
    print(json.dumps([type(step).__name__, list(choice.names), list(urls), peers, discovery.trouble]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await discovery.stop()
    server.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.lan
def test_three_machines_agree_on_one_founder_and_hear_each_other(lan):
    with contextlib.ExitStack() as undo:
        machines = []
        for number, name in enumerate(lan):
            command = ["nsenter", f"--net=/run/netns/{name}", sys.executable, "-c", MACHINE]
            command += [f"n{number}", str(COUNT)]
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            undo.callback(process.kill)
            machines.append(process)
        # a machine prints its line when it has seen the others; pytest's own time limit ends an endless wait
        lines = [process.stdout.readline() for process in machines]
        ended = [process.communicate("", timeout=WITHIN_S) for process in machines]
    assert all(lines), [err for _, err in ended]
    answers = [json.loads(line) for line in lines]
    steps, names, urls, peers, troubles = zip(*answers, strict=True)
    assert sorted(steps) == ["Create", "Join", "Join"] and not any(troubles), answers
    assert all(used == ["eth0"] for used in names)
    assert len({tuple(machine_urls) for machine_urls in urls}) == 1
    assert [sorted(seen) for seen in peers] == [["n1", "n2"], ["n0", "n2"], ["n0", "n1"]]
    assert all(not err for _, err in ended), ended
