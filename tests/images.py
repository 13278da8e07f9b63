"""Image files for tests, made with Pillow's encoders and by hand, and a client that processes them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from mesh.kinds.table import validate
from node.executor.context import Context, Output, load

pillow_heif.register_heif_opener()


def process(folder: Path, data: bytes, **payload: Any) -> Output:
    """The output of `image_processing` for one file."""
    context = Context(cores=1, folder=folder)
    return load("image_processing")(validate("image_processing", {"image": data, **payload}), context)


def pixels(data: bytes) -> np.ndarray:
    """The pixels of a PNG as RGB, RGBA or gray, 8 or 16 bits, by OpenCV."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """The file that Pillow makes of a picture."""
    file = io.BytesIO()
    # A copy: Pillow keeps the options of the last encoder in the picture.
    image.copy().save(file, name, **options)
    return file.getvalue()


def quadrants(width: int = 96, height: int = 64) -> np.ndarray:
    """Red, green / blue, white: an image whose eight orientations all differ."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 220, 30, 30
    image[: height // 2, width // 2 :] = 30, 200, 30
    image[height // 2 :, : width // 2] = 30, 30, 220
    image[height // 2 :, width // 2 :] = 240
    return image


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(ihdr: tuple[int, int, int, int], rows: bytes, *chunks: bytes, after: bytes = b"") -> bytes:
    """A PNG of (width, height, bits, colour type) with filtered rows and further chunks before (and after) them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *ihdr, 0, 0, 0))
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + after
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def with_chunks(data: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with further chunks before its first chunk `before`."""
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


def exif(orientation: int) -> bytes:
    """An EXIF block with an orientation and a camera."""
    block = Image.Exif()
    block[274] = orientation
    block[271] = "Queztl"
    return block.tobytes()


def xmp(orientation: int) -> bytes:
    """XMP with an orientation."""
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
        % orientation
    )
