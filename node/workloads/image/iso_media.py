"""Reads AVIF and HEIC files, which are ISO base media files: kind, size, colours (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from node.workloads.image.containers import Size

_MAX_BOXES = 2000
#: Boxes at the top of a file. One of these that exceeds the file was cut off; any other is not part of the image.
_TOP = frozenset({b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"idat", b"free", b"skip", b"uuid", b"mini"})
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


def format_of(data: bytes) -> str | None:
    """ "avif" or "heic" for a file that begins like one."""
    length = int.from_bytes(data[:4], "big")
    if data[4:8] != b"ftyp" or not 16 <= length <= 1024:
        return None
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    return "heic" if brands & _HEVC else None


def end_of(data: bytes) -> int | None:
    """Where the last box ends; what follows is not part of the image. None: the file was cut off inside a box."""
    end = max((end for _, _, end in _boxes(data, 0, len(data))), default=0)
    return None if data[end + 4 : end + 8] in _TOP else end


def size(data: bytes) -> Size | None:
    """The largest picture in the file: of a grid, that is the whole image."""
    if end_of(data) is None:
        return None
    sizes = [
        (int.from_bytes(data[at + 4 : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big"))
        for at, _ in _properties(data, b"ispe")
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def colour_codes(data: bytes) -> tuple[int, int] | None:
    """(primaries, transfer function) as ITU-T H.273 numbers them, where the file has them."""
    for at, end in _properties(data, b"colr"):
        if data[at : at + 4] == b"nclx" and end - at >= 11:
            return int.from_bytes(data[at + 4 : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")
    return None


def _properties(data: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """(start of the body, end) of the properties of that name of the file's items."""
    for start, end in _named(_boxes(data, 0, len(data)), b"meta"):
        # The body of `meta` begins with four bytes of version and flags.
        for properties in _named(_boxes(data, start + 4, end), b"iprp"):
            for container in _named(_boxes(data, *properties), b"ipco"):
                yield from _named(_boxes(data, *container), name)


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
