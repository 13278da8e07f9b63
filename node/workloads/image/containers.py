"""Reads the size of BMP, TIFF and AVIF files, and detects truncation, from their structure before decoding (pure).

Each reader returns (width, height), or None for a file that is damaged, truncated or of an unsupported variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Size = tuple[int, int]

_MAX_TAGS = 200
#: With one strip per row there are as many values as a side has pixels; real images don't have more.
_MAX_VALUES = 100_000
_MAX_BOXES = 2000
#: TIFF tags.
_WIDTH, _HEIGHT, _BITS, _STRIPS, _STRIP_BYTES = 256, 257, 258, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339
_READ = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _FORMAT}
)


def is_avif(data: bytes) -> bool:
    """Return whether the data begins like an AVIF file."""
    length = int.from_bytes(data[:4], "big")
    return data[4:8] == b"ftyp" and 16 <= length <= 1024 and b"avif" in (data[8:length])


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


def tiff(data: bytes) -> Size | None:
    """The first page of a TIFF with integer samples of at most 16 bits."""
    tags = _tiff_tags(data)
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


def _tiff_tags(data: bytes) -> dict[int, list[int]] | None:
    """The tags of `_READ` that exist -> their values; None when the first directory is not inside the file."""
    order = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    start = number(4, 4)
    count = number(start, 2)
    if start < 8 or not 0 < count <= _MAX_TAGS or start + 2 + 12 * count > len(data):
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


def avif(data: bytes) -> Size | None:
    """The largest picture in an AVIF file: of a grid, that is the whole image."""
    boxes = list(_boxes(data, 0, len(data)))
    if not boxes or boxes[-1][2] != len(data):
        return None
    sizes = [
        (int.from_bytes(data[at + 4 : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big"))
        for start, end in _named(boxes, b"meta")
        # The body of `meta` begins with four bytes of version and flags.
        for properties in _named(_boxes(data, start + 4, end), b"iprp")
        for container in _named(_boxes(data, *properties), b"ipco")
        for at, _ in _named(_boxes(data, *container), b"ispe")
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _named(boxes: Iterable[tuple[bytes, int, int]], name: bytes) -> list[tuple[int, int]]:
    return [(start, end) for kind, start, end in boxes if kind == name]


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, end) of the ISO media boxes between `at` and `end`; stops at an invalid one."""
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return
        length, body = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 1:
            length, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        elif length == 0:
            length = end - at
        if length < body - at or at + length > end:
            return
        yield data[at + 4 : at + 8], body, at + length
        at += length
