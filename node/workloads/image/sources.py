"""Opens image files with Pillow: what they say about themselves, and the pixels of all formats but JPEG.

Pillow's decoders are strict: a wrong checksum or data that ends early is an error, where OpenCV's decoders return an
image that is half gray.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from node.executor.context import InputFault
from node.workloads.image import containers, iso_media
from node.workloads.image.alpha import straight
from node.workloads.image.header import UNSUPPORTED, Header, read_header

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from node.workloads.image.pixels import Image

_PLUGINS = {"jpeg": ("JPEG", "MPO"), "heic": ("HEIF",)}
_ORIENTATION = 274
#: TIFF compression methods that some builds of libtiff lack -> name.
_TIFF_METHODS = {
    2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4", 6: "old JPEG", 7: "JPEG", 32809: "ThunderScan", 34661: "JBIG",
    34676: "SGI LogLuv", 34677: "SGI LogLuv", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA",
    50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
#: Those that Pillow can write, so that a test image shows whether this build has them: method -> Pillow's name.
_PROBES = {7: "jpeg", 34925: "lzma", 50000: "zstd", 50001: "webp"}
_PLAIN_METHODS = frozenset({1, 5, 8, 32773, 32946, 2, 3, 4})
_STRIP_ROWS = 256
#: Pillow's modes of pictures that are neither gray nor RGB.
INK = frozenset({"CMYK", "LAB", "YCbCr", "HSV"})
GRAY = frozenset({"1", "L", "LA", "I;16", "I;16L", "I;16B"})


@dataclass(frozen=True)
class Source:
    """An image file that was opened."""

    header: Header
    data: bytes
    """The file without what follows its end."""
    picture: Picture
    frames: int
    """Frames of an animation, pages, or pictures in the file."""


def open_source(data: bytes, field: str) -> Source:
    """Read the header, and open the file with Pillow; nothing is decoded.

    Raises: InputFault naming `field`; ImportError when this node lacks the format's decoder.
    """
    from PIL import Image as Pictures

    header = read_header(data, field)
    if header.format in ("avif", "heic"):
        _check_decoder(header.format)
        data = data[: iso_media.end_of(data)]
    elif header.format == "tiff":
        _check_compression(data, field)
    with decoding(field, header.format):
        plugins = _PLUGINS.get(header.format, (header.format.upper(),))
        try:
            picture = Pictures.open(io.BytesIO(data), formats=plugins)
        except Pictures.UnidentifiedImageError:
            raise InputFault(field, UNSUPPORTED) from None
        if header.format == "tiff":
            frames = containers.tiff_pages(data)
        elif header.format == "gif":
            frames = containers.gif_frames(data)
        else:
            frames = int(getattr(picture, "n_frames", 1))
    return Source(header, data, picture, frames)


def _check_decoder(name: str) -> None:
    """Raises: ImportError when this node can't read the format; another node may."""
    if name == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
        return
    from PIL import features

    if not features.check("avif"):
        raise ImportError("its Pillow was built without AVIF")


@contextmanager
def decoding(field: str, name: str) -> Generator[None, None, None]:
    """Translate the errors of a decoder, whatever their type. Raises: InputFault naming `field`; MemoryError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputFault, MemoryError, ImportError):
        raise
    except Exception as error:
        if "nsupported" in str(error):
            raise InputFault(field, f"is a {name.upper()} file of a kind that is not supported") from error
        raise InputFault(field, f"is a damaged {name.upper()} file") from error


def read_exif(source: Source) -> Any:
    """The EXIF of a file, as Pillow's `Exif`; empty if there is none or it is damaged. Read it after the pixels: in PNG
    it may follow them."""
    from PIL import Image as Pictures

    exif = Pictures.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if source.header.format not in ("avif", "heic"):
                return source.picture.getexif()
            # The properties of the container decide; Pillow and libheif have put them into the EXIF block. An
            # orientation in XMP has no meaning here.
            exif.load(source.picture.info.get("exif") or b"")
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, EOFError, struct.error):
        return Pictures.Exif()
    return exif


def orientation_of(exif: Any) -> int:
    """1 to 8 as EXIF numbers them; 1 for anything else."""
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def load_picture(source: Source, field: str) -> None:
    """Decode the first frame. Raises: InputFault naming `field`."""
    with decoding(field, source.header.format):
        source.picture.load()
    size = source.picture.size
    if source.header.format == "png" and _ends_black(source.picture) and containers.png_is_short(source.data):
        raise InputFault(field, "is a damaged PNG file")
    # HEIC's decoder turns the picture upright and crops it, TIFF's turns it.
    if source.header.format not in ("heic", "tiff") and size != (source.header.width, source.header.height):
        raise InputFault(field, f"is a damaged {source.header.format.upper()} file")


def _ends_black(picture: Picture) -> bool:
    """Whether one of the last two rows is all zero, as rows are that are missing: Pillow does not notice those."""
    width, height = picture.size
    rows = [picture.crop((0, row, width, row + 1)) for row in range(max(0, height - 2), height)]
    return any(row.getbbox(alpha_only=False) is None for row in rows)


def _check_compression(data: bytes, field: str) -> None:
    """Raises: InputFault for a compression that no build reads; ImportError for one that only this node lacks."""
    method = containers.tiff_compression(data)
    if method in _PLAIN_METHODS:
        return
    label = _TIFF_METHODS.get(method, f"method {method}")
    if method not in _PROBES:
        raise InputFault(field, f"is a TIFF file with the compression {label}, which is not supported")
    from PIL import Image as Pictures

    try:
        Pictures.new("RGB", (16, 16)).save(io.BytesIO(), "TIFF", compression=_PROBES[method])
    except OSError:
        raise ImportError(f"its libtiff was built without {label}") from None


def to_array(source: Source, field: str) -> Image:
    """Gray, BGR or BGRA of a loaded picture of RGB, gray or a palette, with 8 or 16 bits a sample.

    Raises: InputFault naming `field` for other samples.
    """
    import cv2

    if _is_deep(source) and not source.picture.mode.startswith("I;16"):
        return _deep_colours(source, field)
    gray = _gray(source)
    if gray is None:
        return eight_bits(source.picture)
    key = _gray_key(source)
    if key is None:
        return gray
    image = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGRA)
    image[gray == key, 3] = 0
    return image


def _is_deep(source: Source) -> bool:
    if source.header.format == "png":
        return source.data[24] == 16
    return source.header.format == "tiff" and containers.tiff_bits(source.data) > 8


def _gray(source: Source) -> Image | None:
    """One channel, if that is all the picture has beside a transparent level; 10 to 14 bits are spread over 16."""
    import numpy as np

    picture = source.picture
    if picture.mode in ("1", "L"):
        return np.array(picture.convert("L"))
    if not picture.mode.startswith("I;16"):
        return None
    image = np.asarray(picture).astype(np.uint16)
    bits = containers.tiff_bits(source.data) if source.header.format == "tiff" else 16
    return image if bits == 16 else np.rint(image * (65_535 / ((1 << bits) - 1))).astype(np.uint16)


def _gray_key(source: Source) -> int | None:
    """The transparent level of a gray picture. Pillow leaves that of a PNG with 2 or 4 bits as it is stored."""
    key = source.picture.info.get("transparency")
    if not isinstance(key, int):
        return None
    depth = source.data[24] if source.header.format == "png" and source.picture.mode == "L" else 8
    return key * (255 // ((1 << depth) - 1))


def eight_bits(picture: Picture) -> Image:
    """BGR, or BGRA where the picture has alpha, a transparent colour or a palette with transparent colours."""
    import cv2
    import numpy as np

    has_alpha = picture.has_transparency_data
    mode, code = ("RGBA", cv2.COLOR_RGBA2BGRA) if has_alpha else ("RGB", cv2.COLOR_RGB2BGR)
    done = np.empty((picture.height, picture.width, len(mode)), np.uint8)
    # Strip by strip: a large image would need twice the memory otherwise.
    for top in range(0, picture.height, _STRIP_ROWS):
        box = 0, top, picture.width, min(picture.height, top + _STRIP_ROWS)
        strip = picture.crop(box)
        strip = strip if strip.mode == mode else strip.convert(mode)
        done[box[1] : box[3]] = cv2.cvtColor(np.asarray(strip), code)
    return done


def still_webp(source: Source, field: str) -> Image:
    """BGR or BGRA of a WebP of one frame, by OpenCV: half the time of Pillow, which decodes all as animations.

    Raises: InputFault naming `field` where data is missing.
    """
    image = _by_opencv(source)
    if image is None or image.shape[:2] != (source.header.height, source.header.width) or image.ndim != 3:
        raise InputFault(field, "is a damaged WEBP file")
    return image


def _by_opencv(source: Source) -> Image | None:
    """The pixels as stored; None where OpenCV can't decode them."""
    import cv2
    import numpy as np

    try:
        return cv2.imdecode(np.frombuffer(source.data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def _deep_colours(source: Source, field: str) -> Image:
    """16 bits a sample in more than one channel, which Pillow reduces to eight. Raises: InputFault naming `field`."""
    import cv2
    import numpy as np

    image = _by_opencv(source)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] not in (3, 4):
        name = source.header.format.upper()
        raise InputFault(field, f"is a {name} file of a rare kind with more than 8 bits per sample: not supported")
    if image.shape[2] == 4 and source.header.format == "tiff":
        alpha = containers.tiff_alpha(source.data)
        image = straight(image, image.dtype) if alpha == 1 else image if alpha else image[:, :, :3].copy()
    key = source.picture.info.get("transparency")
    if image.shape[2] == 3 and isinstance(key, tuple):
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        image[(image[:, :, 2::-1] == np.array(key, np.uint16)).all(axis=2), 3] = 0
    return image
