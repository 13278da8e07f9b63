"""Formats x oddities through the pipeline, compared with Pillow called directly."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from node.executor.context import InputFault
from tests.images import pixels, png, process, saved


@cache
def photo() -> Image.Image:
    """Smooth blobs."""
    small = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((150, 100), Image.Resampling.BICUBIC)


def as_mode(mode):
    """The photo in one of Pillow's modes; RGBA has its brightness as alpha, with both ends cut."""
    if mode != "RGBA":
        return photo().convert(mode)
    image = photo().convert("RGBA")
    image.putalpha(photo().convert("L").point(lambda value: min(255, max(0, value * 2 - 128))))
    return image


def canvas_larger_than_its_frame():
    data = bytearray(saved(photo().quantize(16), "GIF"))
    data[6:10] = struct.pack("<HH", 200, 180)
    return bytes(data)


def interlaced():
    """A PNG in the seven passes of Adam7, each row without a filter."""
    image, rows = np.asarray(photo()), b""
    for left, top, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in image[top::down, left::right])
    data = png((150, 100, 8, 2), rows)
    head = data[12:28] + b"\1"
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def heic_of_ten_bits():
    file = io.BytesIO()
    deep = np.asarray(photo()).astype(np.uint16) * 257
    pillow_heif.encode("RGB;16", photo().size, deep.tobytes(), file, quality=90)
    return file.getvalue()


def avif_of_ten_bits():
    deep = np.asarray(photo())[:, :, ::-1].astype(np.uint16) * 4
    return cv2.imencode(".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10])[1].tobytes()


def tiff_of_few_bits():
    """Three samples of four bits a pixel: Pillow does not know it."""
    data = bytearray(saved(Image.new("RGB", (9, 9)), "TIFF"))
    at = struct.unpack_from("<I", data, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] == 258:
            struct.pack_into("<3H", data, struct.unpack_from("<I", data, entry + 8)[0], 4, 4, 4)
    return bytes(data)


#: Name -> what makes the file.
CORPUS = {
    **{f"png {mode}": lambda mode=mode: saved(as_mode(mode), "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA")},
    **{f"bmp {mode}": lambda mode=mode: saved(as_mode(mode), "BMP") for mode in ("1", "L", "P", "RGB")},
    **{f"tiff {mode}": lambda mode=mode: saved(as_mode(mode), "TIFF") for mode in ("1", "L", "P", "RGB", "RGBA")},
    "tiff YCbCr": lambda: saved(as_mode("YCbCr"), "TIFF"),
    "tiff, tiles": lambda: saved(photo(), "TIFF", compression="tiff_adobe_deflate", tiffinfo={322: 64, 323: 64}),
    "tiff, JPEG inside": lambda: saved(photo(), "TIFF", compression="jpeg", quality=90),
    "tiff, white is zero": lambda: saved(ImageOps.invert(as_mode("L")), "TIFF", tiffinfo={262: 0}),
    "png, interlaced": interlaced,
    **{
        f"jpeg {chroma}": lambda chroma=chroma: saved(photo(), "JPEG", quality=90, subsampling=chroma)
        for chroma in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
    },
    "jpeg, gray": lambda: saved(as_mode("L"), "JPEG"),
    "jpeg, progressive": lambda: saved(photo(), "JPEG", progressive=True),
    "jpeg, RGB inside": lambda: saved(photo(), "JPEG", keep_rgb=True),
    "jpeg, ink": lambda: saved(as_mode("CMYK"), "JPEG", quality=95),
    "webp": lambda: saved(photo(), "WEBP", quality=80),
    "webp, lossless, alpha": lambda: saved(as_mode("RGBA"), "WEBP", lossless=True),
    "webp, alpha": lambda: saved(as_mode("RGBA"), "WEBP", quality=80),
    "webp, animated": lambda: saved(as_mode("RGBA"), "WEBP", save_all=True, append_images=[photo().convert("RGBA")]),
    "avif": lambda: saved(photo(), "AVIF"),
    "avif, gray": lambda: saved(as_mode("L"), "AVIF"),
    "avif, alpha": lambda: saved(as_mode("RGBA"), "AVIF"),
    "avif, 10 bits": avif_of_ten_bits,
    "heic": lambda: saved(photo(), "HEIF"),
    "heic, alpha": lambda: saved(as_mode("RGBA"), "HEIF"),
    "heic, 10 bits": heic_of_ten_bits,
    "gif, interlaced": lambda: saved(photo().quantize(64), "GIF", interlace=1),
    "gif, larger than its frame": canvas_larger_than_its_frame,
}


@pytest.mark.parametrize("name", CORPUS)
def test_the_pixels_are_those_of_an_independent_decoder(tmp_path, name):
    data = CORPUS[name]()
    output = process(tmp_path, data, format="png")
    result = pixels(output.data)
    mode = "L" if result.ndim == 2 else "RGBA" if result.shape[2] == 4 else "RGB"
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert(mode)).astype(int)
    assert result.shape == wanted.shape and np.abs(result - wanted).max() <= 1
    assert (output.info["orientation"], output.info["colour"]) == (1, "srgb")
    assert output.info["frames"] == (2 if "animated" in name else 1)
    gray = name.endswith((" 1", " L", "gray", "white is zero"))
    assert output.info["channels"] == (4 if "alpha" in name or name.endswith(("A", "animated")) else 1 if gray else 3)


@pytest.mark.parametrize("into", ["jpeg", "png", "webp", "avif", "tiff", "bmp"])
def test_every_input_becomes_every_output_with_its_picture(tmp_path, into):
    """The result, read by Pillow and laid over white where it has alpha, is the picture laid over white."""
    for name in ("png RGBA", "png P", "tiff L", "jpeg 4:2:0", "webp, alpha", "avif, alpha", "heic", "gif, interlaced"):
        data = CORPUS[name]()
        output = process(tmp_path, data, format=into, quality=95)
        shown = []
        for file in (data, output.data):
            picture = Image.open(io.BytesIO(file)).convert("RGBA")
            shown.append(np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture))[..., :3])
        error = np.abs(shown[0].astype(int) - shown[1])
        # Noise of a dithered palette, and the sharp chroma of a HEIC, are what lossy formats leave out.
        lossy = 16 if name in ("png P", "gif, interlaced", "heic") else 5
        assert error.mean() < (lossy if into in ("jpeg", "webp", "avif") else 0.6), (name, error.mean())


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.new("RGB", (9, 9)), "TIFF", big_tiff=True),
        saved(Image.new("RGB", (9, 9)), "JPEG2000"),
        saved(Image.new("RGB", (32, 32)), "ICO"),
        saved(Image.new("RGB", (9, 9)), "PPM"),
        saved(Image.new("F", (9, 9)), "TIFF"),
        tiff_of_few_bits(),
    ],
    ids=["BigTIFF", "JPEG 2000", "ICO", "PPM", "floating point", "4 bits"],
)
def test_other_formats_are_refused_and_not_called_damaged_alone(tmp_path, data):
    with pytest.raises(InputFault, match=r"is not a JPEG|or of an unsupported variant"):
        process(tmp_path, data)
