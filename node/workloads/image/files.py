"""Decodes image files to upright pixels in sRGB, and encodes the results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh.kinds.image_sizes import MAX_PIXELS
from node.executor.context import CertainFailure, InputFault
from node.workloads.image import colour_spaces, metadata, sources
from node.workloads.image.alpha import covered
from node.workloads.image.header import Header
from node.workloads.image.icc import Profile
from node.workloads.image.jpeg import decode_jpeg
from node.workloads.image.metadata import Metadata
from node.workloads.image.orientation import upright
from node.workloads.image.pixels import channels, eight_bits, size_of
from node.workloads.image.sources import Source

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from node.workloads.image.pixels import Image

#: Formats with 16 bits per sample; the others get the upper eight.
DEEP = frozenset({"png", "tiff"})
#: Formats that mix the colours of neighbouring pixels beside an alpha that they keep.
LOSSY_ALPHA = frozenset({"webp", "avif"})
#: The largest profile or text in a PNG, unpacked.
MAX_PNG_TEXT = 16 << 20
#: Pillow's mode of a JPEG -> the colours to decode to.
_JPEG_COLOURS = {"L": "GRAY", "RGB": "BGR", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Decoded:
    """A decoded file: upright pixels, in sRGB unless `colour` says otherwise, and what is known about the file."""

    image: Image
    header: Header
    size: tuple[int, int]
    """(width, height) of the upright image"""
    frames: int
    orientation: int
    """The orientation that was applied, 1 to 8 as EXIF numbers them."""
    colour: str
    """"srgb": it was; "converted" to sRGB; "kept" in `profile`; "pending": `in_srgb` is to convert it"""
    profile: Profile | None
    """The profile in the file, unless that is sRGB's."""
    metadata: Metadata


def open_library(cores: int) -> None:
    """Load the libraries, with the same limit on pixels as `read_header` as a second check."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    import cv2
    from PIL import Image as Pictures
    from PIL import PngImagePlugin

    cv2.setNumThreads(cores)
    # Pillow's own limit is lower, and only warns.
    Pictures.MAX_IMAGE_PIXELS = MAX_PIXELS
    # Of a profile or of XMP in a PNG: large ones of printers exceed Pillow's 1 MiB.
    setattr(PngImagePlugin, "MAX_TEXT_CHUNK", MAX_PNG_TEXT)  # noqa: B010  # declared as a constant


def check_writer(name: str) -> None:
    """Raises: ImportError when this node's OpenCV was built without the format; another node's may have it."""
    import cv2

    if not cv2.haveImageWriter(f"image.{name}"):
        raise ImportError(f"its OpenCV was built without {name.upper()}")


@dataclass(frozen=True)
class Keep:
    """Whose colours are kept: of images in colour, of gray images."""

    colour: bool = False
    gray: bool = False


_KEEP_NONE = Keep()


def decode(data: bytes, field: str, keep: Keep = _KEEP_NONE) -> Decoded:
    """The first frame of a file, upright. PNG and TIFF keep 16 bits per sample; alpha is straight.

    Raises: InputFault naming `field` for a damaged, unsupported or too large file; ImportError when this node lacks the
    decoder.
    """
    source = sources.open_source(data, field)
    del data
    header = source.header
    # Pillow turns a TIFF upright as it decodes it, and forgets the orientation.
    orientation = sources.orientation_of(sources.read_exif(source)) if header.format in ("jpeg", "tiff") else 0
    image, profile, was_used = _pixels(source, field)
    exif = sources.read_exif(source)
    orientation = orientation or sources.orientation_of(exif)
    stored = size_of(image) if header.format in ("tiff", "heic") else (header.width, header.height)
    if header.format != "tiff":
        image = upright(image, orientation)
        stored = stored[::-1] if orientation > 4 else stored
    state = "converted" if was_used else "srgb"
    if profile is not None and not was_used:
        state = "kept" if keep.colour and colour_spaces.can_keep(image, profile, keep.gray) else "pending"
    facts = metadata.read_metadata(source.picture, exif)
    return Decoded(image, header, stored, source.frames, orientation, state, profile, facts)


def in_srgb(image: Image, decoded: Decoded) -> tuple[Image, str]:
    """(`image`, which was made of the pixels of `decoded`, in sRGB; what became of its colours)

    The second is `decoded.colour`, "converted", or "ignored" where the profile in the file does not fit the image.
    """
    if decoded.colour != "pending" or decoded.profile is None:
        return image, decoded.colour
    done = colour_spaces.to_srgb(image, decoded.profile)
    return (image, "ignored") if done is None else (done, "converted")


def _pixels(source: Source, field: str) -> tuple[Image, Profile | None, bool]:
    """(pixels as stored, the profile in the file, whether they are in sRGB by it already).

    Raises: InputFault; ImportError.
    """
    name, picture = source.header.format, source.picture
    pixels: Image | None = None
    if name == "jpeg":
        pixels, picture = _jpeg_pixels(source, field)
    elif name == "webp" and source.frames == 1:
        pixels = sources.still_webp(source, field)
    else:
        sources.load_picture(source, field)
    is_gray = picture.mode in sources.GRAY
    profile = colour_spaces.find_profile(name, source.data, source.picture.info, sources.read_exif(source), is_gray)
    if picture.mode in sources.INK:
        rgb, was_used = colour_spaces.picture_to_rgb(picture, profile)
        return sources.eight_bits(rgb), profile, was_used
    return sources.to_array(source, field) if pixels is None else pixels, profile, False


def _jpeg_pixels(source: Source, field: str) -> tuple[Image | None, Picture]:
    """(gray or BGR pixels, None for ink; the picture that has them or the ink). Raises: InputFault."""
    mode = source.picture.mode
    if mode not in _JPEG_COLOURS:
        raise InputFault(field, "is a JPEG file of a kind that is not supported")
    image = decode_jpeg(source.data, _JPEG_COLOURS[mode], field)
    if mode != "CMYK":
        return image, source.picture
    from PIL import Image as Pictures

    # Ink is stored inverted, as Adobe's programs do.
    return None, Pictures.frombuffer("CMYK", size_of(image), (255 - image).tobytes())


def encode(image: Image, name: str, quality: int, extra: metadata.Embedded) -> bytes:
    """The bytes of the image file with `extra` in it. Raises: CertainFailure when OpenCV can't write it."""
    import cv2

    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "avif": [getattr(cv2, "IMWRITE_AVIF_QUALITY", 512), quality],
    }.get(name, [])
    image = image if name in DEEP else eight_bits(image)
    image = covered(image) if name in LOSSY_ALPHA else image
    if extra.is_empty or name == "tiff":
        ok, encoded = cv2.imencode(f".{name}", image, options)
    else:
        kinds, blocks = extra.for_opencv(name)
        ok, encoded = cv2.imencodeWithMetadata(f".{name}", image, kinds, blocks, options)
    if not ok:
        raise CertainFailure(f"OpenCV could not write the image as {name}")
    return metadata.with_tiff_tags(encoded.tobytes(), extra, channels(image)) if name == "tiff" else encoded.tobytes()
