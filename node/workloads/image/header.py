"""Reads the header of an image file before anything is decoded (pure).

A few hundred bytes can claim a hundred thousand pixels per side, and the decoder would allocate them all. So the size
is checked first, and a truncated file is refused instead of half decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mesh.kinds.image_sizes import MAX_PIXELS
from node.executor.context import InputFault
from node.workloads.image import containers, iso_media

_PNG = b"\x89PNG\r\n\x1a\n"
UNSUPPORTED = "is damaged, truncated, or of an unsupported variant"
#: Start-of-frame markers of JPEG: C0-CF without C4 (tables), C8 (reserved) and CC (arithmetic coding tables).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """Format ("jpeg", "png", "webp", "avif", "tiff", "bmp", "gif", "heic") and size in pixels, as stored."""

    format: str
    width: int
    height: int


def read_header(data: bytes, field: str = "image") -> Header:
    """The header of an image file.

    Raises: InputFault naming `field` for an unsupported, damaged or truncated file, or more than MAX_PIXELS.
    """
    name = _format_of(data)
    if name is None:
        raise InputFault(field, "is not a JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF or BMP file" if data else "is empty")
    size = _READERS[name](data)
    if size is None or not size[0] or not size[1]:
        raise InputFault(field, UNSUPPORTED)
    if size[0] * size[1] > MAX_PIXELS:
        pixels = f"{size[0]} x {size[1]} pixels"
        raise InputFault(field, f"has {pixels}; the limit is {MAX_PIXELS // 1_000_000} million")
    return Header(name, *size)


def _format_of(data: bytes) -> str | None:
    if data.startswith(_PNG):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\x00", b"MM\x00*"):
        return "tiff"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return iso_media.format_of(data) or ("bmp" if data.startswith(b"BM") else None)


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xD9, 0xDA) or length < 2:
            return None
        if marker in _FRAMES:
            frame = data[at + 4 : at + 10]
            if len(frame) < 6 or data.find(b"\xff\xd9", at + 2 + length) < 0:
                return None
            return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
        at += 2 + length
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data):
        return None
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


_READERS: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "png": containers.png,
    "jpeg": _jpeg,
    "webp": _webp,
    "tiff": containers.tiff,
    "avif": iso_media.size,
    "heic": iso_media.size,
    "bmp": containers.bmp,
    "gif": containers.gif,
}
