"""A process that takes work and never finishes it, for tests of reclaiming: `python holder.py URL NODE BATCH`."""

from __future__ import annotations

import asyncio
import json
import sys

from mesh import messages, subjects
from mesh.bus.client import Bus
from mesh.membership.connections import connection_name
from mesh.messages import Heartbeat, Held, HeldSet, NodeRecord


async def main(url: str, node: str, batch: int) -> None:
    """Run the node; it prints "holds <n>" after each announcement."""
    bus = await Bus.connect([url], name=connection_name(node, "1"))
    record = NodeRecord(id=node, name=node, incarnation="1")
    await bus.kv(subjects.KV_NODES).put(node, messages.encode(record))
    held: list[Held] = []

    def on_work(message) -> None:
        if not message.reply:
            return
        fields = message.reply.split(".")
        held.append(Held(int(fields[-4]), int(fields[-5]), message.reply, message.subject.split(".")[-1]))
        announcement = HeldSet(node=node, incarnation="1", held=tuple(held))
        bus.send(subjects.held(node), messages.encode(announcement))
        print("holds", len(held), flush=True)

    box = bus.new_inbox()
    await bus.subscribe(box, on_work)
    lane = subjects.lane_durable("echo", "any", "normal")
    pull = {"batch": batch, "expires": 60_000_000_000, "group": "all", "priority": 0}
    bus.send(f"$JS.API.CONSUMER.MSG.NEXT.WORK.{lane}", json.dumps(pull).encode(), box)
    print("pulls", flush=True)
    for seq in range(1_000_000):
        bus.send(subjects.heartbeat(node), messages.encode(Heartbeat(node=node, incarnation="1", seq=seq)))
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
