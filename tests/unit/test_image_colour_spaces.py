"""Colours come out in sRGB, whichever way a file describes them, or stay as they are with their profile."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from node.workloads.image import icc, operations
from tests.images import chunk, pixels, png, process, saved, with_chunks

WHITE = (0.3127, 0.3290)
PRIMARIES = {
    "sRGB": (*WHITE, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    "Display P3": (*WHITE, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    "Adobe RGB": (*WHITE, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    "BT.2020": (*WHITE, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    "ProPhoto": (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001),
}
COLOURS = [(200, 60, 40), (10, 200, 30), (128, 128, 128), (250, 250, 10), (0, 0, 0), (255, 255, 255), (90, 70, 160)]


def matrix(primaries):
    """Linear RGB to XYZ relative to its own white, straight from the definition."""
    white, *points = [
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    ]
    columns = np.array(points).T
    return columns * np.linalg.solve(columns, white)


def in_srgb(colours, primaries, exponent=None, top=255):
    """The colours in sRGB, computed from the primaries and the exponent (None: sRGB's curve); D65 only."""
    value = np.array(colours, float) / top
    linear = (
        value**exponent if exponent else np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    )
    light = np.clip(linear @ (np.linalg.inv(matrix(PRIMARIES["sRGB"])) @ matrix(primaries)).T, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * top


def profile(name, exponent=None):
    """An ICC profile as bytes."""
    curve = icc.parametric(exponent) if exponent else icc.srgb_curve()
    return icc.write_profile(name, curve, PRIMARIES[name]).data


PICTURE = Image.fromarray(np.repeat(np.repeat(np.array([COLOURS], np.uint8), 16, axis=0), 16, axis=1))


def middles(result):
    """The pixel in the middle of each colour's field."""
    return result[8, 8::16].astype(int)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_profile_is_converted_in_every_format(tmp_path, name):
    options = {"lossless": True} if name == "WEBP" else {} if name in ("PNG", "TIFF") else {"quality": 100}
    if name in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"
    if name == "HEIF":
        options["chroma"] = 444
    for space, exponent in (("Display P3", None), ("Adobe RGB", 2.2), ("BT.2020", 2.4)):
        data = saved(PICTURE, name, icc_profile=profile(space, exponent), **options)
        output = process(tmp_path, data, format="png")
        assert (output.info["colour"], output.info["profile"]) == ("converted", space)
        stored = middles(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        wanted = in_srgb(stored, PRIMARIES[space], exponent)
        assert np.abs(middles(pixels(output.data)) - wanted).max() <= 3, (space, middles(pixels(output.data)), wanted)
        assert "icc_profile" not in Image.open(io.BytesIO(output.data)).info


def test_a_red_of_display_p3_is_that_of_every_viewer(tmp_path):
    data = saved(Image.new("RGB", (16, 16), (200, 60, 40)), "PNG", icc_profile=profile("Display P3"))
    assert pixels(process(tmp_path, data).data)[8, 8].tolist() == [217, 42, 23]


@pytest.mark.parametrize("into", ["jpeg", "png", "webp", "avif", "tiff"])
def test_kept_colours_have_their_profile(tmp_path, into):
    block = profile("Display P3")
    output = process(tmp_path, saved(PICTURE, "PNG", icc_profile=block), format=into, colour="keep", quality=95)
    assert output.info["colour"] == "kept"
    assert Image.open(io.BytesIO(output.data)).info["icc_profile"] == block
    again = process(tmp_path, output.data, format="png")
    assert np.abs(middles(pixels(again.data)) - in_srgb(COLOURS, PRIMARIES["Display P3"])).max() <= (
        1 if into in ("png", "tiff") else 12
    )
    assert again.info["colour"] == "converted"


def test_a_format_without_profiles_gets_srgb(tmp_path):
    output = process(tmp_path, saved(PICTURE, "PNG", icc_profile=profile("Display P3")), format="bmp", colour="keep")
    assert output.info["colour"] == "converted"


def test_a_profile_of_srgb_changes_no_pixel_and_a_damaged_one_neither(tmp_path):
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for block, state in ((built_in, "srgb"), (b"nonsense", "srgb"), (profile("Display P3")[:300], "srgb")):
        output = process(tmp_path, saved(PICTURE, "PNG", icc_profile=block))
        assert np.array_equal(pixels(output.data), np.asarray(PICTURE)) and output.info["colour"] == state


def test_sixteen_bits_are_converted_with_sixteen_bits(tmp_path):
    values = np.array([[(20_000, 45_000, 9_001), (20_001, 45_000, 9_001), (65_535, 0, 30_000)]], np.uint16)
    deep = cv2.imencode(".png", values[:, :, ::-1])[1].tobytes()
    block = profile("Display P3")
    data = with_chunks(deep, chunk(b"iCCP", b"x\0\0" + __import__("zlib").compress(block)))
    output = process(tmp_path, data)
    wanted = in_srgb(values, PRIMARIES["Display P3"], top=65_535)
    assert pixels(output.data).dtype == np.uint16 and np.abs(pixels(output.data) - wanted).max() <= 12
    kept = process(tmp_path, data, colour="keep", format="tiff")
    assert np.array_equal(pixels(kept.data), values)
    assert Image.open(io.BytesIO(kept.data)).info["icc_profile"] == block


def test_ink_is_converted_with_and_without_a_profile(tmp_path):
    ink = np.zeros((16, 64, 4), np.uint8)
    for field, value in enumerate([(0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0), (255, 0, 0, 0)]):
        ink[:, 16 * field : 16 * field + 16] = value
    picture = Image.frombytes("CMYK", (64, 16), ink.tobytes())
    wanted = [[255, 0, 0], [0, 0, 0], [255, 255, 255], [0, 255, 255]]
    for name, options in (("JPEG", {"quality": 100}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})):
        for colour in ("srgb", "keep"):
            output = process(tmp_path, saved(picture, name, **options), format="png", colour=colour)
            assert np.abs(middles(pixels(output.data)) - wanted).max() <= 3, name
    lab = saved(Image.new("LAB", (9, 9), (138, 20, 30)), "TIFF")
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    expected = ImageCms.applyTransform(Image.open(io.BytesIO(lab)), transform)
    assert pixels(process(tmp_path, lab, format="png").data)[4, 4].tolist() == list(expected.getpixel((4, 4)))


def ink_profile():
    """A profile of ink as a table with two steps an ink: L* falls by 80 for black and by 20 for each of the others."""
    nodes = bytearray()
    for node in range(16):
        cyan, magenta, yellow, black = (node >> 3) & 1, (node >> 2) & 1, (node >> 1) & 1, node & 1
        lightness = max(0, 100 - 20 * (cyan + magenta + yellow) - 80 * black)
        nodes += bytes([round(lightness * 2.55), 128 + 60 * magenta - 30 * cyan, 128 + 60 * yellow - 30 * cyan])
    identity = b"".join(struct.pack(">i", 65_536 * (place % 4 == 0)) for place in range(9))
    lut = (
        b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + bytes(nodes) + bytes(range(256)) * 3
    )
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63_190, 65_536, 54_061)
    desc = b"desc\0\0\0\0" + struct.pack(">I", 8) + b"Two ink\0" + bytes(80)
    tags, at = [(b"desc", desc), (b"wtpt", white), (b"A2B0", lut)], 132 + 12 * 3
    table, bodies = b"", b""
    for tag, body in tags:
        table += tag + struct.pack(">II", at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = (
        struct.pack(">I", at + len(bodies)) + bytes(4) + b"\x02\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    )
    head += struct.pack(">3i", 63_190, 65_536, 54_061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + bodies


def test_ink_with_a_profile_has_the_colours_of_the_profile(tmp_path):
    ink = np.zeros((16, 48, 4), np.uint8)
    for field, value in enumerate([(0, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255)]):
        ink[:, 16 * field : 16 * field + 16] = value
    picture = Image.frombytes("CMYK", (48, 16), ink.tobytes())
    cms = ImageCms.ImageCmsProfile(io.BytesIO(ink_profile()))
    transform = ImageCms.buildTransform(cms, ImageCms.createProfile("sRGB"), "CMYK", "RGB")
    for name, options in (("JPEG", {"quality": 100}), ("TIFF", {})):
        data = saved(picture, name, icc_profile=ink_profile(), **options)
        output = process(tmp_path, data, format="png", colour="keep")
        assert (output.info["colour"], output.info["profile"]) == ("converted", "Two ink")
        wanted = middles(np.asarray(ImageCms.applyTransform(picture, transform)))
        assert np.abs(middles(pixels(output.data)) - wanted).max() <= 4
        assert wanted[0].min() > 240 and wanted[1][0] > wanted[1][1] + 50 and 20 < wanted[2].max() < 80


def test_a_bitmap_with_a_profile_is_converted(tmp_path):
    body = np.asarray(PICTURE)[::-1, :, ::-1].tobytes()
    block = profile("Display P3")
    head = struct.pack("<IiiHHIIiiII", 124, PICTURE.width, PICTURE.height, 1, 24, 0, len(body), 0, 0, 0, 0)
    head += bytes(16) + b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(body), len(block), 0)
    data = b"BM" + struct.pack("<IHHI", 14 + 124 + len(body) + len(block), 0, 0, 138) + head + body + block
    output = process(tmp_path, data, format="png")
    assert np.abs(middles(pixels(output.data)) - in_srgb(COLOURS, PRIMARIES["Display P3"])).max() <= 1.6


def test_a_large_profile_in_a_png_is_read(tmp_path):
    block = profile("Display P3") + bytes(2_000_000)
    block = struct.pack(">I", len(block)) + block[4:]
    output = process(tmp_path, saved(PICTURE, "PNG", icc_profile=block))
    assert output.info["profile"] == "Display P3"


def test_gray_with_a_profile_stays_gray_in_srgbs_curve(tmp_path):
    gray = Image.fromarray(np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[None], 16, axis=0))
    block = icc.write_profile("gamma 1.8", icc.parametric(1.8), None).data
    wanted = in_srgb(np.asarray(gray)[8][:, None].repeat(3, axis=1), PRIMARIES["sRGB"], 1.8)[:, 0]
    for name in ("PNG", "TIFF"):
        output = process(tmp_path, saved(gray, name, icc_profile=block), format="png")
        assert output.info["channels"] == 1 and output.info["colour"] == "converted"
        assert np.abs(pixels(output.data)[8] - wanted).max() <= 1
    kept = process(tmp_path, saved(gray, "PNG", icc_profile=block), colour="keep")
    assert Image.open(io.BytesIO(kept.data)).info["icc_profile"] == block and pixels(kept.data).ndim == 2
    tinted = process(tmp_path, saved(gray, "PNG", icc_profile=block), colour="keep", operations=[{"op": "sepia"}])
    assert "icc_profile" not in Image.open(io.BytesIO(tinted.data)).info
    alpha = saved(gray.convert("LA"), "PNG", icc_profile=block)
    assert np.abs(pixels(process(tmp_path, alpha).data)[8, :, 0] - wanted).max() <= 1
    mismatched = saved(gray, "JPEG", quality=100, icc_profile=profile("Adobe RGB", 1.8))
    assert np.abs(pixels(process(tmp_path, mismatched, format="png").data)[8] - wanted).max() <= 3


def test_png_says_its_colours_in_four_ways_and_the_best_counts(tmp_path):
    plain = saved(PICTURE, "PNG")
    p3 = [round(value * 100_000) for value in PRIMARIES["Display P3"]]
    chrm, gama = chunk(b"cHRM", struct.pack(">8I", *p3)), chunk(b"gAMA", struct.pack(">I", 55_556))
    srgb_gama, srgb = chunk(b"gAMA", struct.pack(">I", 45_455)), chunk(b"sRGB", b"\0")
    cicp = chunk(b"cICP", bytes([12, 13, 0, 1]))
    gamma_18 = in_srgb(COLOURS, PRIMARIES["sRGB"], 1.8)
    in_p3 = in_srgb(COLOURS, PRIMARIES["Display P3"])
    for chunks, wanted in (
        ([gama], gamma_18),
        ([gama, chrm], in_srgb(COLOURS, PRIMARIES["Display P3"], 1.8)),
        ([srgb_gama, chrm], in_p3),
        ([srgb_gama], np.array(COLOURS)),
        ([srgb, gama, chrm], np.array(COLOURS)),
        ([cicp], in_p3),
        ([cicp, srgb, gama], in_p3),
        ([chunk(b"cICP", bytes([1, 13, 0, 1])), gama], np.array(COLOURS)),
        ([chunk(b"cICP", bytes([1, 8, 0, 1]))], in_srgb(COLOURS, PRIMARIES["sRGB"], 1.0)),
        ([chunk(b"gAMA", struct.pack(">I", 0))], np.array(COLOURS)),
    ):
        result = middles(pixels(process(tmp_path, with_chunks(plain, *chunks)).data))
        assert np.abs(result - wanted).max() <= 1.6, ([body[4:8] for body in chunks], result, wanted)
    embedded = saved(PICTURE, "PNG", icc_profile=profile("Adobe RGB", 2.2))
    for data, wanted in (
        (embedded, in_srgb(COLOURS, PRIMARIES["Adobe RGB"], 2.2)),
        (with_chunks(embedded, cicp), in_p3),
    ):
        assert np.abs(middles(pixels(process(tmp_path, data).data)) - wanted).max() <= 1.6
    gray = png((3, 1, 8, 0), b"\0\x20\x80\xf0", gama)
    wanted = in_srgb([[value] * 3 for value in (0x20, 0x80, 0xF0)], PRIMARIES["sRGB"], 1.8)[:, 0]
    assert np.abs(pixels(process(tmp_path, gray).data)[0] - wanted).max() <= 1
    kept = process(tmp_path, with_chunks(plain, cicp), colour="keep")
    assert np.array_equal(pixels(kept.data), np.asarray(PICTURE))
    assert np.abs(middles(pixels(process(tmp_path, kept.data).data)) - in_p3).max() <= 1.6


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_the_numbers_of_an_avif_or_heic_are_converted(tmp_path, name):
    options = {"subsampling": "4:4:4"} if name == "AVIF" else {"chroma": 444}
    data = saved(PICTURE, name, quality=100, **options)
    assert data.count(b"nclx") == 1, "this encoder writes no numbers"
    at = data.index(b"nclx") + 4
    for primaries, transfer, wanted in (
        (12, 13, in_srgb(COLOURS, PRIMARIES["Display P3"])),
        (9, 1, in_srgb(COLOURS, PRIMARIES["BT.2020"])),
        (1, 13, np.array(COLOURS)),
        (1, 1, np.array(COLOURS)),
        (2, 2, np.array(COLOURS)),
        (1, 4, in_srgb(COLOURS, PRIMARIES["sRGB"], 2.2)),
    ):
        changed = data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]
        result = middles(pixels(process(tmp_path, changed, format="png").data))
        assert np.abs(result - wanted).max() <= 6, (primaries, transfer, result, wanted)


def test_hdr_is_shown_with_its_graphics_white_as_white(tmp_path):
    """PQ of 203 cd/m² is 0.5807 and HLG's is 0.75: both become white, and what is brighter too."""
    for transfer, white in ((16, 0.5807), (18, 0.75)):
        value = round(white * 255)
        data = with_chunks(
            saved(Image.new("RGB", (9, 9), (value,) * 3), "PNG"), chunk(b"cICP", bytes([9, transfer, 0, 1]))
        )
        output = process(tmp_path, data, colour="keep")
        assert pixels(output.data).min() >= 252 and output.info["colour"] == "converted"
        dark = with_chunks(
            saved(Image.new("RGB", (9, 9), (value // 2,) * 3), "PNG"), chunk(b"cICP", bytes([9, transfer, 0, 1]))
        )
        assert 20 < pixels(process(tmp_path, dark).data).max() < 200


def test_colours_that_are_converted_after_shrinking_are_close_to_those_converted_before(tmp_path, monkeypatch):
    small = np.random.default_rng(5).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)
    data = saved(picture, "PNG", icc_profile=profile("Display P3"))
    steps = [{"op": "resize", "width": 160}]
    early = pixels(process(tmp_path, data, operations=steps).data).astype(int)
    plain = pixels(process(tmp_path, saved(picture, "PNG"), operations=steps).data)
    monkeypatch.setattr(operations, "LATE_PIXELS", 1)
    late = pixels(process(tmp_path, data, operations=steps).data)
    difference = np.abs(late - early)
    assert difference.mean() < 1 and difference.max() < 32 < np.abs(plain - early).max()
    bars = process(tmp_path, data, width=160, height=200, fit="pad", background="#c83c28")
    assert pixels(bars.data)[0, 0].tolist() == [200, 60, 40]
    mark = {"op": "watermark", "image": data, "scale": 0.5, "opacity": 1, "margin": 0, "position": "top-left"}
    marked = pixels(process(tmp_path, saved(Image.new("RGB", (320, 320)), "PNG"), operations=[mark]).data)
    assert np.abs(marked[:120, :160].astype(int) - early).max() <= 4


def test_a_camera_that_says_adobe_rgb_in_exif_only_is_believed(tmp_path):
    block = Image.Exif()
    block[271] = "Queztl"
    block.get_ifd(0x8769)[0xA001] = 65_535
    block.get_ifd(0x8769)[0xA005] = {1: "R03"}
    data = saved(PICTURE, "JPEG", quality=100, subsampling=0, exif=block.tobytes())
    output = process(tmp_path, data, format="png")
    assert output.info["profile"] == "Adobe RGB (1998)"
    assert np.abs(middles(pixels(output.data)) - in_srgb(COLOURS, PRIMARIES["Adobe RGB"], 563 / 256)).max() <= 3


def test_a_written_profile_reads_back_and_littlecms_agrees():
    srgb = ImageCms.createProfile("sRGB")
    for name, primaries in PRIMARIES.items():
        for exponent in (None, 1.0, 1.8, 2.2):
            written = icc.write_profile(name, icc.parametric(exponent) if exponent else icc.srgb_curve(), primaries)
            assert icc.is_srgb(written) == (name == "sRGB" and exponent is None)
            transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(written.data)), srgb, "RGB", "RGB")
            by_cms = np.asarray(ImageCms.applyTransform(PICTURE, transform))[8, 8::16].astype(int)
            light = np.stack(
                [icc.linear(curve, np.array(COLOURS)[:, at] / 255) for at, curve in enumerate(written.curves)], 1
            )
            ours = icc.encoded(light @ icc.to_srgb_matrix(written.matrix).T) * 255
            assert np.abs(by_cms - ours).max() <= 1.6, (name, exponent)
