"""Metadata: what a file has beside its pixels, and what of it goes into the result.

EXIF is written anew: upright (orientation 1), with the size of the result, without its thumbnail. Nothing else that
describes the file's old pixels is carried over.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

#: Formats that can hold each block.
HOLDS = {
    "exif": frozenset({"jpeg", "png", "webp", "avif", "tiff"}),
    "xmp": frozenset({"jpeg", "png", "webp", "avif", "tiff"}),
    "profile": frozenset({"jpeg", "png", "webp", "avif", "tiff"}),
}
_ORIENTATION, _EXIF_IFD, _GPS_IFD = 274, 0x8769, 0x8825
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
#: The tags of a TIFF directory that describe a picture and its maker, not how its pixels are stored.
_DESCRIPTIVE = frozenset({270, 271, 272, 274, 285, 305, 306, 315, 316, 33432, 36867, _EXIF_IFD, _GPS_IFD})
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))[0-9]")
#: The longest EXIF and XMP that a segment of a JPEG can hold.
_MAX_JPEG_BLOCK = 65_000
_EXTRA_SAMPLES = 338
#: Types of TIFF values: bytes of text, 16-bit and 32-bit numbers, anything.
_TEXT, _SHORT, _LONG, _OPAQUE = 2, 3, 4, 7


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file."""

    exif: Any
    """Pillow's `Exif`."""
    xmp: bytes
    others: tuple[str, ...]
    """Names of blocks that no result gets: "iptc", "comment"."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that the file has."""
        return (*(("exif",) if len(self.exif) else ()), *(("xmp",) if self.xmp else ()), *self.others)


@dataclass(frozen=True)
class Embedded:
    """The blocks to write into a result; empty ones are not written."""

    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    directory: Any = None
    """The EXIF as Pillow's `Exif`, for TIFF, whose directories hold its tags themselves."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.exif or self.xmp or self.profile)

    def for_opencv(self, name: str) -> tuple[list[int], list[np.ndarray]]:
        """(types, blocks) for `cv2.imencodeWithMetadata`."""
        import cv2
        import numpy as np

        # OpenCV hands XMP to libpng as a C string.
        xmp = self.xmp + b"\0" if name == "png" and self.xmp else self.xmp
        blocks = {
            cv2.IMAGE_METADATA_EXIF: self.exif,
            cv2.IMAGE_METADATA_XMP: xmp,
            cv2.IMAGE_METADATA_ICCP: self.profile,
        }
        used = {kind: np.frombuffer(block, np.uint8) for kind, block in blocks.items() if block}
        return list(used), list(used.values())


def read_metadata(picture: Picture, exif: Any) -> Metadata:
    """The metadata of an opened file."""
    info = picture.info
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    if isinstance(xmp, (tuple, list)):
        xmp = bytes(xmp)
    others = [name for name, key in (("iptc", "photoshop"), ("comment", "comment")) if info.get(key)]
    kept = exif
    if picture.format == "TIFF":
        from PIL import Image as Pictures

        kept = Pictures.Exif()
        for tag, value in exif.items():
            if tag in _DESCRIPTIVE and tag not in (_ORIENTATION, _EXIF_IFD, _GPS_IFD):
                kept[tag] = value
        for tag in (_EXIF_IFD, _GPS_IFD):
            if tag in exif and exif.get_ifd(tag):
                kept[tag] = dict(exif.get_ifd(tag))
    return Metadata(kept, xmp.encode() if isinstance(xmp, str) else bytes(xmp), tuple(others))


def upright_exif(exif: Any, width: int, height: int) -> Any:
    """The EXIF of an image of that size that needs no turning. Raises: the errors of damaged EXIF, of any type."""
    from PIL import Image as Pictures

    done = Pictures.Exif()
    for tag, value in exif.items():
        if tag in (_EXIF_IFD, _GPS_IFD):
            inner = dict(value if isinstance(value, dict) else exif.get_ifd(tag))
            inner |= {name: side for name, side in ((_PIXEL_WIDTH, width), (_PIXEL_HEIGHT, height)) if name in inner}
            done[tag] = inner
        else:
            done[tag] = 1 if tag == _ORIENTATION else value
    return done


def embed(found: Metadata, size: tuple[int, int], name: str, keep: bool) -> tuple[Embedded, list[str], list[str]]:
    """(blocks for a result of the format `name`, names of what is kept, names of what is dropped)."""
    if not keep:
        return Embedded(), [], list(found.names)
    kept: list[str] = []
    exif, directory, xmp = b"", None, b""
    if len(found.exif) and name in HOLDS["exif"]:
        try:
            directory = upright_exif(found.exif, *size)
            exif = directory.tobytes()
        except Exception:  # damaged EXIF raises anything: struct.error, KeyError, TypeError, …
            exif = b""
        if len(exif) > _MAX_JPEG_BLOCK and name == "jpeg":
            exif = b""
    if found.xmp and name in HOLDS["xmp"] and not (len(found.xmp) > _MAX_JPEG_BLOCK and name == "jpeg"):
        xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", found.xmp)
    kept += [label for label, block in (("exif", exif), ("xmp", xmp)) if block]
    dropped = [label for label in found.names if label not in kept]
    return Embedded(exif, xmp, directory=directory if exif else None), kept, dropped


def with_tiff_tags(data: bytes, extra: Embedded, channels: int) -> bytes:
    """A TIFF as OpenCV writes it (little-endian, one page) with the blocks as tags of its directory.

    OpenCV does not say that a fourth channel is straight alpha: other programs would ignore it.
    """
    from PIL import TiffImagePlugin

    if extra.is_empty and channels < 4:
        return data
    out = bytearray(data) + bytes(len(data) % 2)
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    entries = {
        int.from_bytes(data[at : at + 2], "little"): data[at : at + 12]
        for at in range(start + 2, start + 2 + 12 * count, 12)
    }

    def add(tag: int, kind: int, values: int, body: bytes) -> None:
        place = body.ljust(4, b"\0")
        if len(body) > 4:
            place = struct.pack("<I", len(out))
            out.extend(body + bytes(len(body) % 2))
        entries[tag] = struct.pack("<HHI", tag, kind, values) + place

    if channels == 4:
        add(_EXTRA_SAMPLES, _SHORT, 1, struct.pack("<H", 2))
    for tag, block in ((700, extra.xmp), (34675, extra.profile)):
        if block:
            add(tag, _OPAQUE, len(block), block)
    for tag, value in extra.directory.items() if extra.directory is not None else ():
        if tag in (_EXIF_IFD, _GPS_IFD):
            inner = TiffImagePlugin.ImageFileDirectory_v2(ifh=b"II*\0\0\0\0\0")
            for name, inner_value in value.items():
                inner[name] = inner_value
            add(tag, _LONG, 1, struct.pack("<I", len(out)))
            out.extend(inner.tobytes(len(out)))
            out.extend(bytes(len(out) % 2))
        elif isinstance(value, str) and tag in _DESCRIPTIVE:
            text = value.encode("utf-8") + b"\0"
            add(tag, _TEXT, len(text), text)
    out[4:8] = struct.pack("<I", len(out))
    out += struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return bytes(out)
