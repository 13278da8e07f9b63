"""Decodes and encodes image files with OpenCV's codecs; the size is checked before decoding."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mesh.kinds.image_sizes import MAX_PIXELS
from node.executor.context import CertainFailure, InputFault
from node.workloads.image.header import Header, read_header
from node.workloads.image.pixels import channels, eight_bits

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image

#: Formats with 16 bits per sample; the others get the upper eight.
DEEP = frozenset({"png", "tiff"})


def open_library(cores: int) -> None:
    """Load OpenCV with the same limit on pixels as `read_header`, as a second check."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    import cv2

    cv2.setNumThreads(cores)


def check_writer(name: str) -> None:
    """Raises: ImportError when this node's OpenCV was built without the format; another node's may have it."""
    import cv2

    if not cv2.haveImageWriter(f"image.{name}"):
        raise ImportError(f"its OpenCV was built without {name.upper()}")


def decode(data: bytes, field: str) -> tuple[Image, Header]:
    """The pixels of a file, and its header.

    JPEGs are rotated according to their EXIF orientation and keep one or three channels; the others keep alpha, and
    PNG and TIFF keep 16 bits per sample. Raises: InputFault naming `field` for a damaged or too large image.
    """
    import cv2
    import numpy as np

    header = read_header(data, field)
    mode = cv2.IMREAD_ANYCOLOR if header.format == "jpeg" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:
        image = None
    # The orientation may swap the sides; any other size that differs from the header's means damage.
    if image is None or {*image.shape[:2]} != {header.width, header.height}:
        raise InputFault(field, f"is a damaged {header.format.upper()} file")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if channels(image) not in (1, 3, 4) or image.dtype not in (np.uint8, np.uint16):
        raise InputFault(field, "has an unsupported sample type or number of channels")
    return image, header


def encode(image: Image, name: str, quality: int) -> bytes:
    """The bytes of the image file. Raises: CertainFailure when OpenCV can't write it."""
    import cv2

    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "avif": [getattr(cv2, "IMWRITE_AVIF_QUALITY", 512), quality],
    }.get(name, [])
    ok, encoded = cv2.imencode(f".{name}", image if name in DEEP else eight_bits(image), options)
    if not ok:
        raise CertainFailure(f"OpenCV could not write the image as {name}")
    return encoded.tobytes()
