"""Reads which units a packet of H.264 or H.265 consists of (pure).

A decoder starts anew at an IDR picture: nothing after it refers to anything before it, by the standards. So a video may
be cut there without decoding it. A packet that the file marks as a key frame may be something else.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The sizes of the parts of the configuration records (avcC, hvcC) before their parameter sets.
_AVC_HEAD, _HEVC_HEAD = 7, 23


@dataclass(frozen=True, slots=True)
class Units:
    """What a packet consists of."""

    anew: bool
    """Whether the decoder starts anew with this packet."""
    parameters: bool
    """Whether it has parameter sets: what follows may need them."""


class Unclear(Exception):
    """The packet is damaged, or has units whose meaning is not known here."""


def length_bytes(codec: str, extradata: bytes) -> int:
    """The size of the length before each unit; 0: the units have none, or are not understood.

    `codec`: FFmpeg's name; `extradata`: the configuration of the decoder.
    """
    if extradata[:1] != b"\x01":
        return 0
    if codec == "h264" and len(extradata) >= _AVC_HEAD:
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) >= _HEVC_HEAD:
        return (extradata[21] & 3) + 1
    return 0


def units_of(codec: str, packet: memoryview, length: int) -> Units:
    """The units of a packet; `length`: see `length_bytes`. Raises: Unclear."""
    found = _avc if codec == "h264" else _hevc
    pictures: list[bool] = []
    parameters = False
    at = 0
    while at < len(packet):
        begins = at + length
        at = begins + int.from_bytes(packet[at:begins], "big")
        if at > len(packet) or at - begins < 3:
            if begins < at <= len(packet):
                continue  # a unit without content, such as the end of a sequence
            raise Unclear
        kind, sets = found(packet[begins : begins + 3])
        parameters |= sets
        if kind is not None:
            pictures.append(kind)
    if not pictures:
        raise Unclear
    return Units(all(pictures), parameters)


def _avc(head: memoryview) -> tuple[bool | None, bool]:
    """(whether a slice belongs to an IDR picture, or None for no slice; whether it is a parameter set)"""
    kind = head[0] & 31
    if kind in (1, 5):
        return kind == 5, False
    if kind in (2, 3, 4, 20, 21):
        raise Unclear  # slices in partitions, and those of a second view
    return None, kind in (7, 8, 13, 15)


def _hevc(head: memoryview) -> tuple[bool | None, bool]:
    kind, layer = head[0] >> 1 & 63, (head[0] & 1) << 5 | head[1] >> 3
    if layer:
        raise Unclear
    if kind < 32:
        drops = 16 <= kind <= 23 and bool(head[2] & 64)  # pictures before it that wait for their turn are not shown
        return kind in (19, 20) and not drops, False
    return None, kind in (32, 33, 34)
