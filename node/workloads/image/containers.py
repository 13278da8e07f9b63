"""Reads the size of PNG, GIF, BMP and TIFF files, and detects truncation, from their structure (pure).

Each reader returns (width, height), or None for a file that is damaged, truncated or of an unsupported variant.
"""

from __future__ import annotations

import zlib
from typing import Literal

Size = tuple[int, int]

_MAX_TAGS = 200
#: With one strip per row there are as many values as a side has pixels; real images don't have more.
_MAX_VALUES = 100_000
_MAX_PAGES = 10_000
#: Bytes that are inflated at a time.
_INFLATED = 1 << 20
#: TIFF tags.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _STRIP_BYTES = 256, 257, 258, 259, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_READ = frozenset({_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _STRIP_BYTES, _FORMAT})
_READ |= {_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA}


def png(data: bytes) -> Size | None:
    """A PNG with all its chunks; what follows the last of them is not part of the image."""
    chunks = png_chunks(data)
    if chunks is None or len(chunks.get(b"IHDR", b"")) != 13 or b"IDAT" not in chunks:
        return None
    return int.from_bytes(chunks[b"IHDR"][:4], "big"), int.from_bytes(chunks[b"IHDR"][4:8], "big")


def png_chunks(data: bytes) -> dict[bytes, bytes] | None:
    """Type -> body of the first chunk of each type; IDAT is empty. None: the file ends before the chunk IEND."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            return None
        if kind == b"IEND":
            return chunks
        if kind not in chunks:
            chunks[kind] = b"" if kind == b"IDAT" else data[at + 8 : at + 8 + length]
        at += 12 + length
    return None


#: First column and row, and their steps, of the seven passes of an interlaced PNG.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_is_short(data: bytes) -> bool:
    """Whether a PNG whose chunks are whole holds less data than its rows need."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits = data[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(data[25], 1)
    needed = 0
    for left, top, right, down in _PASSES if data[28] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        needed += max(0, rows) * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    inflater, at = zlib.decompressobj(), 8
    while at + 12 <= len(data) and needed > 0:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        waiting = data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        while waiting and needed > 0 and not inflater.eof:
            needed -= len(inflater.decompress(waiting, _INFLATED))
            waiting = inflater.unconsumed_tail
        if kind == b"IEND" or inflater.eof:
            break
        at += 12 + length
    return needed > 0


def gif(data: bytes) -> Size | None:
    """A GIF whose blocks are all inside the file."""
    if gif_frames(data) == 0:
        return None
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def gif_frames(data: bytes) -> int:
    """The number of frames; 0 for a file that ends before its trailer."""
    at, frames = 13 + _gif_palette(data[10:11]), 0
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return frames
        if kind == 0x2C:
            # An image: ten bytes of descriptor, a palette, the code size, then blocks of data.
            at += 11 + _gif_palette(data[at + 9 : at + 10])
            frames += 1
        elif kind == 0x21:
            at += 2
        else:
            return 0
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return 0


def _gif_palette(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def bmp(data: bytes) -> Size | None:
    """An uncompressed Windows bitmap."""
    if len(data) < 54 or int.from_bytes(data[14:18], "little") < 40:
        return None
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = abs(int.from_bytes(data[22:26], "little", signed=True))
    bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    needed = int.from_bytes(data[10:14], "little") + (width * bits + 31) // 32 * 4 * height
    if width <= 0 or compression not in (0, 3, 6) or needed > len(data):
        return None
    return width, height


def bmp_profile(data: bytes) -> bytes:
    """The colour profile inside a bitmap of version 5; empty if there is none."""
    if len(data) < 138 or int.from_bytes(data[14:18], "little") < 124 or data[70:74] != b"DEBM":
        return b""
    start, size = 14 + int.from_bytes(data[126:130], "little"), int.from_bytes(data[130:134], "little")
    return data[start : start + size]


def tiff(data: bytes) -> Size | None:
    """The first page of a TIFF with integer samples of at most 16 bits."""
    tags = tiff_tags(data)
    if tags is None:
        return None
    width, height = tags.get(_WIDTH, [0])[0], tags.get(_HEIGHT, [0])[0]
    if any(bits > 16 for bits in tags.get(_BITS, [1])) or any(sort != 1 for sort in tags.get(_FORMAT, [1])):
        return None
    # The decoder decodes whole tiles, even if only a small part of one is inside the image.
    for name, side in ((_TILE_WIDTH, width), (_TILE_HEIGHT, height)):
        if name in tags and not 0 < tags[name][0] <= max(4096, 2 * side):
            return None
    starts = tags.get(_STRIPS) or tags.get(_TILES) or []
    lengths = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES) or []
    if not starts or len(starts) != len(lengths):
        return None
    if any(start + length > len(data) for start, length in zip(starts, lengths, strict=True)):
        return None
    return width, height


def tiff_pages(data: bytes) -> int:
    """The number of pages: directories in the chain, each counted once."""
    order = _order(data)
    at, seen = int.from_bytes(data[4:8], order), set[int]()
    while 8 <= at <= len(data) - 2 and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        after = at + 2 + 12 * int.from_bytes(data[at : at + 2], order)
        at = int.from_bytes(data[after : after + 4], order)
    return len(seen)


def tiff_compression(data: bytes) -> int:
    """The number of the first page's compression method; 1: none."""
    return (tiff_tags(data) or {}).get(_COMPRESSION, [1])[0]


def tiff_alpha(data: bytes) -> int:
    """What the first sample beyond the colours is: 0: no alpha, 1: premultiplied alpha, 2: straight alpha.

    Without a word about it, it is taken for straight alpha: OpenCV writes it so.
    """
    return (tiff_tags(data) or {}).get(_EXTRA, [2])[0]


def tiff_bits(data: bytes) -> int:
    """The largest number of bits per sample of the first page."""
    return max((tiff_tags(data) or {}).get(_BITS, [1]))


def _order(data: bytes) -> Literal["little", "big"]:
    return "little" if data[:2] == b"II" else "big"


def tiff_tags(data: bytes) -> dict[int, list[int]] | None:
    """The tags of `_READ` that exist -> their values; None when the first directory is not inside the file."""
    order = _order(data)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    start = number(4, 4)
    count = number(start, 2)
    if start < 8 or not 0 < count <= _MAX_TAGS or start + 6 + 12 * count > len(data):
        return None
    tags: dict[int, list[int]] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, size, values = number(at, 2), {3: 2, 4: 4}.get(number(at + 2, 2)), number(at + 4, 4)
        if size is None or not values or tag not in _READ or tag in tags:
            continue
        place = at + 8 if size * values <= 4 else number(at + 8, 4)
        if values > _MAX_VALUES or place + size * values > len(data):
            return None
        tags[tag] = [number(place + size * index, size) for index in range(values)]
    return tags
