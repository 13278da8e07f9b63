"""Every format that carries an orientation comes out upright, turned once."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from node.workloads.image.orientation import upright
from tests.images import chunk, exif, pixels, process, quadrants, saved, with_chunks, xmp

#: Orientation -> the pixel of the upright image at (row, column) of an image stored with h rows and w columns: the
#: table of the EXIF standard, which says where the stored row 0 and column 0 are to be seen.
SEEN = {
    1: lambda r, c, h, w: (r, c),
    2: lambda r, c, h, w: (r, w - 1 - c),
    3: lambda r, c, h, w: (h - 1 - r, w - 1 - c),
    4: lambda r, c, h, w: (h - 1 - r, c),
    5: lambda r, c, h, w: (c, r),
    6: lambda r, c, h, w: (c, h - 1 - r),
    7: lambda r, c, h, w: (w - 1 - c, h - 1 - r),
    8: lambda r, c, h, w: (w - 1 - c, r),
}


def turned(image, orientation):
    """The upright image, pixel by pixel."""
    height, width = image.shape[:2]
    done = np.zeros((width, height, *image.shape[2:]) if orientation > 4 else image.shape, image.dtype)
    for row in range(height):
        for column in range(width):
            done[SEEN[orientation](row, column, height, width)] = image[row, column]
    return done


def deep_tiff(image, orientation):
    """A TIFF of 16 bits with the orientation, uncompressed."""
    data = bytearray(cv2.imencode(".tiff", image.astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1])
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entries = [bytes(data[at : at + 12]) for at in range(start + 2, start + 2 + 12 * count, 12)]
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 274)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    data[4:8] = struct.pack("<I", len(data))
    return bytes(data) + struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)


def raw_profile(orientation):
    """EXIF as ImageMagick writes it into a text chunk of a PNG."""
    block = exif(orientation)
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    return chunk(b"tEXt", b"Raw profile type exif\0" + text)


PICTURE = Image.fromarray(quadrants())
MAKERS = {
    "jpeg": lambda o: saved(PICTURE, "JPEG", quality=95, exif=exif(o)),
    "jpeg, XMP only": lambda o: saved(PICTURE, "JPEG", quality=95, xmp=xmp(o)),
    "jpeg, EXIF and XMP": lambda o: saved(PICTURE, "JPEG", quality=95, exif=exif(o), xmp=xmp(o)),
    "jpeg, gray": lambda o: saved(PICTURE.convert("L"), "JPEG", quality=95, exif=exif(o)),
    "png eXIf": lambda o: saved(PICTURE, "PNG", exif=exif(o)),
    "png eXIf at the end": lambda o: with_chunks(saved(PICTURE, "PNG"), chunk(b"eXIf", exif(o)[6:]), before=b"IEND"),
    "png text": lambda o: with_chunks(saved(PICTURE, "PNG"), raw_profile(o)),
    "webp": lambda o: saved(PICTURE, "WEBP", lossless=True, exif=exif(o)),
    "tiff": lambda o: saved(PICTURE, "TIFF", tiffinfo={274: o}),
    "tiff, compressed": lambda o: saved(PICTURE, "TIFF", compression="tiff_lzw", tiffinfo={274: o}),
    "tiff, 16 bits": lambda o: deep_tiff(quadrants()[:, :, ::-1], o),
    "avif irot and imir": lambda o: saved(PICTURE, "AVIF", quality=95, exif=exif(o)),
    "heic irot and imir": lambda o: saved(PICTURE, "HEIF", quality=95, exif=exif(o)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_each_orientation_of_each_format_comes_out_upright(tmp_path, name):
    for orientation in range(1, 9):
        data = MAKERS[name](orientation)
        output = process(tmp_path, data, format="png")
        wanted = turned(quadrants(), orientation)
        result = pixels(output.data)
        if "gray" in name:
            wanted = cv2.cvtColor(wanted, cv2.COLOR_RGB2GRAY)
        result = result // 257 if result.dtype == np.uint16 else result
        assert result.shape == wanted.shape, orientation
        # Lossy formats blur the seams between the quadrants.
        assert np.median(np.abs(result.astype(int) - wanted)) <= 3, orientation
        assert (np.abs(result.astype(int) - wanted) > 12).mean() < 0.15, orientation
        if name not in ("heic irot and imir",):
            assert output.info["orientation"] == orientation


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_the_container_turns_and_exif_not_again(tmp_path, name):
    block = Image.Exif()
    block[274], block[262] = 6, 6
    # The encoders move the orientation into the container. Another tag, renamed, says the same in EXIF, as phones do.
    data = saved(PICTURE, name, quality=95, exif=block.tobytes(), xmp=xmp(6))
    data = data.replace(struct.pack(">HHI", 262, 3, 1), struct.pack(">HHI", 274, 3, 1))
    assert b"irot" in data and struct.pack(">HHI", 274, 3, 1) in data
    result = pixels(process(tmp_path, data, format="png").data)
    assert np.median(np.abs(result.astype(int) - turned(quadrants(), 6))) <= 3
    # The container says that the image is upright: what EXIF and XMP say has no meaning.
    at = data.index(b"irot") + 4
    upright_file = data[:at] + b"\0" + data[at + 1 :]
    result = pixels(process(tmp_path, upright_file, format="png").data)
    assert np.median(np.abs(result.astype(int) - quadrants())) <= 3


def test_a_result_with_its_metadata_is_not_turned_again(tmp_path):
    for name in ("jpeg", "png eXIf", "webp", "avif irot and imir", "heic irot and imir", "tiff", "jpeg, EXIF and XMP"):
        for into in ("jpeg", "png", "webp", "avif", "tiff"):
            output = process(tmp_path, MAKERS[name](6), format=into, metadata="keep")
            again = process(tmp_path, output.data, format="png")
            assert again.info["orientation"] == 1, (name, into)
            assert (again.info["width"], again.info["height"]) == (64, 96), (name, into)
            assert np.median(np.abs(pixels(again.data).astype(int) - turned(quadrants(), 6))) <= 4, (name, into)


def test_a_wrong_orientation_is_none(tmp_path):
    for value in (0, 9, 65_535):
        output = process(tmp_path, saved(PICTURE, "PNG", exif=exif(value)))
        assert output.info["orientation"] == 1 and output.info["width"] == 96
    damaged = with_chunks(saved(PICTURE, "PNG"), chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"))
    assert process(tmp_path, damaged).info["orientation"] == 1


def test_the_eight_orientations_are_a_group():
    image = np.arange(15).reshape(3, 5).astype(np.uint8)
    made = {orientation: upright(image, orientation) for orientation in range(1, 9)}
    assert len({(value.shape, value.tobytes()) for value in made.values()}) == 8
    for first, value in made.items():
        assert np.array_equal(value, turned(image, first))
        inverse = {6: 8, 8: 6}.get(first, first)
        assert np.array_equal(upright(value, inverse), image)
        for second in range(1, 9):
            twice = upright(value, second)
            assert sum(np.array_equal(twice, other) for other in made.values()) == 1
