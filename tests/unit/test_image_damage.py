"""Frames are counted, damaged files are refused by the decoder's own warnings, and harmless ones are not."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from node.executor.context import InputFault
from node.workloads.image import sources
from tests.images import chunk, pixels, png, process, saved, with_chunks, xmp
from tests.images import exif as exif_block


def noise(width=300, height=200, seed=1):
    """Smooth noise, so that every part of its file matters."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


FRAMES = [noise(64, 48, seed) for seed in range(3)]
ANIMATED = {
    "GIF": {}, "WEBP": {"lossless": True}, "PNG": {}, "AVIF": {}, "HEIF": {"quality": 100}, "MPO": {}, "TIFF": {},
    "TIFF, compressed": {"compression": "tiff_lzw"},
}  # fmt: skip


@pytest.mark.parametrize("name", ANIMATED)
def test_frames_and_pages_are_counted_and_the_first_is_kept(tmp_path, name):
    options, plugin = ANIMATED[name], name.partition(",")[0]
    data = saved(FRAMES[0], plugin, save_all=True, append_images=[frame.copy() for frame in FRAMES[1:]], **options)
    output = process(tmp_path, data, format="png")
    assert (output.info["frames"], output.info["kept"]) == (3, 1)
    difference = np.abs(pixels(output.data)[..., :3].astype(int) - np.asarray(FRAMES[0]))
    assert np.median(difference) <= 8
    alone = process(tmp_path, saved(FRAMES[0], plugin, **options), format="png")
    assert (alone.info["frames"], alone.info["kept"]) == (1, 1)


def test_a_picture_beside_an_animation_is_counted(tmp_path):
    data = saved(
        FRAMES[0], "PNG", save_all=True, append_images=[frame.copy() for frame in FRAMES[1:]], default_image=True
    )
    output = process(tmp_path, data)
    assert output.info["frames"] == 3 and np.array_equal(pixels(output.data), np.asarray(FRAMES[0]))


#: How to make a file of each format.
MAKERS = {
    "JPEG": lambda: saved(noise(), "JPEG", quality=92),
    "JPEG, progressive": lambda: saved(noise(), "JPEG", quality=92, progressive=True),
    "JPEG, gray": lambda: saved(noise().convert("L"), "JPEG", quality=92),
    "JPEG, ink": lambda: saved(noise().convert("CMYK"), "JPEG", quality=92),
    "JPEG, restarts": lambda: saved(noise(), "JPEG", quality=92, restart_marker_rows=1),
    "PNG": lambda: saved(noise(), "PNG"),
    "PNG, 16 bits": lambda: saved(Image.fromarray(np.asarray(noise().convert("L")).astype(np.uint16) * 257), "PNG"),
    "WEBP": lambda: saved(noise(), "WEBP", quality=90),
    "WEBP, lossless": lambda: saved(noise(), "WEBP", lossless=True),
    "AVIF": lambda: saved(noise(), "AVIF", quality=90),
    "HEIF": lambda: saved(noise(), "HEIF", quality=90),
    "TIFF": lambda: saved(noise(), "TIFF"),
    "TIFF, compressed": lambda: saved(noise(), "TIFF", compression="tiff_adobe_deflate"),
    "GIF": lambda: saved(noise(), "GIF"),
    "BMP": lambda: saved(noise(), "BMP"),
}
JPEGS = [name for name in MAKERS if name.startswith("JPEG")]


@cache
def whole(name: str) -> bytes:
    return MAKERS[name]()


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_whose_end_is_missing_or_zeros_is_damaged(tmp_path, name):
    data = whole(name)
    assert process(tmp_path, data, format="png").info["width"] == 300
    for share in (0.3, 0.6, 0.9, 0.97):
        at = int(len(data) * share)
        with pytest.raises(InputFault, match="damaged"):
            process(tmp_path, data[:at], format="png")
        # Pixels that are not compressed may be zeros, and the others have no checksum: zeros are valid data.
        if name not in ("BMP", "TIFF", "WEBP", "WEBP, lossless", "AVIF", "HEIF"):
            with pytest.raises(InputFault, match="damaged"):
                process(tmp_path, data[:at] + bytes(len(data) - at), format="png")


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_with_missing_data_is_damaged_though_it_has_an_end(tmp_path, name):
    data = whole(name)
    for share in (0.3, 0.6, 0.9):
        at = int(len(data) * share)
        for end in (b"\xff\xd9", bytes(len(data) - at) + b"\xff\xd9", b"\0\xff\xd9" + bytes(99)):
            with pytest.raises(InputFault, match="damaged JPEG file"):
                process(tmp_path, data[:at] + end)


def test_other_damage_is_seen(tmp_path):
    data = whole("PNG")
    without_end = data[: data.index(b"IEND") - 4]
    at = data.index(b"IDAT") + 300
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    short = png((30, 30, 8, 2), bytes(91 * 29))
    for damaged in (without_end, flipped, short):
        with pytest.raises(InputFault, match="damaged"):
            process(tmp_path, damaged)
    black = Image.fromarray(np.zeros((31, 13, 3), np.uint8))
    for picture in (black, black.convert("L"), black.convert("1"), black.convert("RGBA"), black.convert("P")):
        assert process(tmp_path, saved(picture, "PNG")).info["height"] == 31


@pytest.mark.parametrize("name", MAKERS)
def test_what_follows_the_end_of_a_file_does_no_harm(tmp_path, name):
    data = whole(name)
    wanted = pixels(process(tmp_path, data, format="png").data)
    for garbage in (b"x" * 10_000, bytes(10_000), b"PK\x03\x04" + bytes(500), b"\r\n"):
        assert np.array_equal(pixels(process(tmp_path, data + garbage, format="png").data), wanted), garbage[:4]


def test_padding_before_the_end_of_a_jpeg_does_no_harm(tmp_path):
    data = whole("JPEG")
    wanted = pixels(process(tmp_path, data, format="png").data)
    for padding in (b"\xff" * 9, bytes(30), b"\0\xff\0" * 3):
        assert np.array_equal(pixels(process(tmp_path, data[:-2] + padding + data[-2:], format="png").data), wanted)


@pytest.mark.parametrize("method", ["zstd", "lzma", "tiff_jpeg", "packbits", "group4"])
def test_the_compressions_of_tiff_are_read(tmp_path, method):
    picture = noise().convert("1") if method == "group4" else noise()
    data = saved(picture, "TIFF", compression=method)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("L" if method == "group4" else "RGB"))
    assert np.array_equal(pixels(process(tmp_path, data, format="png").data), wanted)


def test_a_missing_codec_is_not_damage(tmp_path, monkeypatch):
    data = saved(noise(), "TIFF", compression="zstd")
    at = data.index(b"\x03\x01\x03\0\x01\0\0\0\x50\xc3")
    lerc = data[: at + 8] + (34_887).to_bytes(2, "little") + data[at + 10 :]
    with pytest.raises(InputFault, match="compression LERC, which is not supported"):
        process(tmp_path, lerc)
    webp = data[: at + 8] + (50_001).to_bytes(2, "little") + data[at + 10 :]
    with pytest.raises(ImportError, match="libtiff was built without WebP"):
        process(tmp_path, webp)

    def absent(*_):
        raise ImportError("No module named 'pillow_heif'")

    monkeypatch.setattr(sources, "_check_decoder", absent)
    with pytest.raises(ImportError, match="pillow_heif"):
        process(tmp_path, whole("HEIF"))


@cache
def with_metadata(name):
    """A small file with EXIF (a camera, an author, a place, a size) and, but for TIFF, XMP."""
    block = Image.Exif()
    block[271], block[274], block[315] = "Queztl", 6, "Ada"
    block.get_ifd(0x8769)[0xA002] = 300
    block.get_ifd(0x8825)[1] = "N"
    block.get_ifd(0x8825)[2] = (47.0, 22.0, 30.0)
    if name == "TIFF":
        return saved(FRAMES[0], name, exif=block.tobytes())
    data = saved(FRAMES[0], name, exif=block.tobytes(), xmp=xmp(6))
    if name == "PNG":
        data = with_chunks(data, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)))
    return data


@pytest.mark.parametrize("into", ["jpeg", "png", "webp", "avif", "tiff"])
def test_metadata_is_dropped_or_kept_and_the_result_says_which(tmp_path, into):
    for name in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIF"):
        data = with_metadata(name)
        stripped = process(tmp_path, data, format=into)
        assert stripped.info["metadata_kept"] == [] and "exif" in stripped.info["metadata_dropped"], name
        opened = Image.open(io.BytesIO(stripped.data))
        assert not opened.info.get("exif") and not opened.info.get("xmp") and b"Ada" not in stripped.data
        kept = process(tmp_path, data, format=into, metadata="keep", width=40)
        names = ["exif"] if name == "TIFF" else ["exif", "xmp"]
        assert (kept.info["metadata_kept"], kept.info["metadata_dropped"]) == (names, []), (name, into)
        read = Image.open(io.BytesIO(kept.data)).getexif()
        assert (read[271], read[315], read.get(274, 1)) == ("Queztl", "Ada", 1), (name, into)
        assert read.get_ifd(0x8825)[1] == "N" and read.get_ifd(0x8825)[2] == (47.0, 22.0, 30.0)
        assert read.get_ifd(0x8769)[0xA002] == 40


def test_what_a_format_can_not_hold_is_said_to_be_dropped(tmp_path):
    data = saved(noise(), "JPEG", exif=exif_block(1), xmp=xmp(1), comment=b"hello")
    output = process(tmp_path, data, format="bmp", metadata="keep")
    assert (output.info["metadata_kept"], output.info["metadata_dropped"]) == ([], ["exif", "xmp", "comment"])
    broken = with_chunks(whole("PNG"), chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(40)))
    assert process(tmp_path, broken, metadata="keep").info["width"] == 300
