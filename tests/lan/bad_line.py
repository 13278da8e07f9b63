"""A bad line: what one machine sends and receives arrives late, and some of it never. Run between two cards.

`python bad_line.py CARD CARD DELAY_S LOSS SECONDS`: every Ethernet frame of one card leaves by the other. For kernels
without netem. It ends by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time

ETH_P_ALL = 3
_SIOCETHTOOL = 0x8946
#: ETHTOOL_SRXCSUM, STXCSUM, SSG, STSO, SGSO, SGRO: a raw socket must see frames as they are on the wire.
_OFFLOADS = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)


def without_offloads(card: str) -> None:
    """Have the kernel compute checksums and cut packets itself, as far as the card can be configured."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFFLOADS:
            value = bytearray(struct.pack("II", command, 0))
            buffer = (ctypes.c_char * len(value)).from_buffer(value)
            request = struct.pack("16sP", card.encode(), ctypes.addressof(buffer))
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, _SIOCETHTOOL, request)


def forward(cards: tuple[str, str], delay_s: float, loss: float, seconds: float) -> None:
    """Carry frames between the two cards until the time is over."""
    ends = []
    for card in cards:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.bind((card, 0))
        end.setblocking(False)
        ends.append(end)
    waiting: list[tuple[float, int, int, bytes]] = []
    number, until = 0, time.monotonic() + seconds
    while (now := time.monotonic()) < until:
        wait_s = min(0.05, max(0.0, waiting[0][0] - now)) if waiting else 0.05
        for end in select.select(ends, [], [], wait_s)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, (_, _, kind, *_) = end.recvfrom(65536)
                    if kind == socket.PACKET_OUTGOING or random.random() < loss:
                        continue
                    number += 1
                    heapq.heappush(waiting, (time.monotonic() + delay_s, number, 1 - ends.index(end), frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(waiting)
            with contextlib.suppress(OSError):
                ends[to].send(frame)


if __name__ == "__main__":
    first, second, delay, lost, how_long = sys.argv[1:]
    without_offloads(first)
    without_offloads(second)
    forward((first, second), float(delay), float(lost), float(how_long))
