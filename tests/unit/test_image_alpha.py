"""The colours under transparent pixels show nowhere: not at edges, not in formats without alpha."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from node.workloads.image.alpha import flattened, on_premultiplied, premultiplied, straight
from tests.images import chunk, pixels, png, process, saved

#: Every operation that looks at neighbouring pixels, or at all of them, or drops alpha.
LOOKING = [
    *({"op": "resize", "width": 16, "interpolation": how} for how in ("nearest", "linear", "cubic", "area", "lanczos")),
    *({"op": "resize", "width": 90, "enlarge": True, "interpolation": how} for how in ("linear", "cubic", "lanczos")),
    {"op": "resize", "width": 20, "height": 20, "fit": "pad"},
    *({"op": "rotate", "angle": 30, "interpolation": how} for how in ("nearest", "linear", "cubic", "lanczos")),
    *({"op": "blur", "method": how, "radius": 2} for how in ("gaussian", "box", "median", "bilateral")),
    {"op": "sharpen", "sigma": 2},
    {"op": "denoise"},
    {"op": "equalise"},
    {"op": "equalise", "method": "clahe"},
    {"op": "edges", "low": 20, "high": 60},
    {"op": "threshold", "method": "otsu"},
    {"op": "threshold", "method": "adaptive"},
    {"op": "grayscale"},
    {"op": "colour", "saturation": 1.5},
    {"op": "sepia"},
    {"op": "watermark", "text": "Hello", "scale": 0.8, "position": "center"},
]  # fmt: skip
named = pytest.mark.parametrize("step", LOOKING, ids=lambda step: " ".join(str(value) for value in step.values()))


def half_transparent(colours, hidden):
    """64 x 64: columns 0 to 32 are opaque, the rest has the colours `hidden` and no alpha."""
    image = np.dstack([hidden, np.zeros((64, 64), np.uint8)])
    image[:, :33, :3] = colours[:, :33]
    image[:, :33, 3] = 255
    return image


def of(image):
    """The image as a PNG file."""
    return saved(Image.fromarray(image), "PNG")


@named
def test_no_result_depends_on_the_colours_under_transparent_pixels(tmp_path, step):
    random = np.random.default_rng(3)
    colours = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = []
    for hidden in (
        np.zeros_like(colours),
        np.full_like(colours, 255),
        random.integers(0, 256, colours.shape, np.uint8),
    ):
        image = half_transparent(colours, hidden.astype(np.uint8))
        result = pixels(process(tmp_path, of(image), operations=[step], format="png").data)
        if result.ndim == 3 and result.shape[2] == 4:
            result[result[:, :, 3] == 0] = 0
        seen.append(result)
    assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])


MIXING = [step for step in LOOKING if step["op"] in ("resize", "rotate", "blur", "sharpen", "denoise")]


@pytest.mark.parametrize("step", MIXING, ids=lambda step: " ".join(str(value) for value in step.values()))
def test_an_edge_to_transparent_keeps_its_colour(tmp_path, step):
    red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    image = half_transparent(red, np.zeros_like(red))
    result = pixels(process(tmp_path, of(image), operations=[step]).data).astype(int)
    visible = result[:, :, 3] > 0
    assert visible.any() and (np.abs(result[visible][:, :3] - (255, 0, 0)) <= 1).all()


def test_the_edge_of_a_small_image_is_red_and_not_dark(tmp_path):
    red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    image = half_transparent(red, np.zeros_like(red))
    assert pixels(process(tmp_path, of(image), width=16).data)[8, 8].tolist() == [255, 0, 0, 64]


def test_a_jpeg_shows_the_background_under_transparent_pixels(tmp_path):
    hidden = np.full((64, 64, 3), (0, 0, 255), np.uint8)
    image = half_transparent(np.full_like(hidden, (255, 0, 0)), hidden)
    for fields, wanted in (({}, (255, 255, 255)), ({"background": "#008000"}, (0, 128, 0))):
        output = process(tmp_path, of(image), format="jpeg", quality=95, **fields)
        assert output.info["channels"] == 3
        assert np.abs(pixels(output.data)[32, 56].astype(int) - wanted).max() <= 3
        gray = process(tmp_path, of(image), operations=[{"op": "grayscale"}], format="png", **fields)
        assert abs(int(pixels(gray.data)[32, 56]) - round(np.dot(wanted, (0.299, 0.587, 0.114)))) <= 1


@pytest.mark.parametrize("into", ["webp", "avif"])
def test_a_lossy_format_mixes_no_hidden_colour_into_an_edge(tmp_path, into):
    row, column = np.mgrid[0:64, 0:64]
    disc = (row - 31.5) ** 2 + (column - 31.5) ** 2 < 24**2
    for hidden in ((0, 0, 255), (0, 0, 0), (0, 255, 0)):
        image = np.zeros((64, 64, 4), np.uint8)
        image[..., :3] = hidden
        image[disc] = 255, 0, 0, 255
        output = process(tmp_path, of(image), format=into, quality=90)
        result = np.asarray(Image.open(io.BytesIO(output.data)).convert("RGBA")).astype(int)
        assert np.abs(result[disc][:, :3] - (255, 0, 0)).max() <= 6
        assert result[0, 0, 3] == 0


def test_bars_are_the_background_or_transparent(tmp_path):
    opaque, clear = np.zeros((10, 40, 3), np.uint8), np.zeros((10, 40, 4), np.uint8)
    clear[:, :] = 9, 9, 9, 255
    work = {"width": 20, "height": 20, "fit": "pad", "background": "#102030", "format": "png"}
    assert pixels(process(tmp_path, of(opaque), **work).data)[0, 0].tolist() == [16, 32, 48]
    assert pixels(process(tmp_path, of(clear), **work).data)[0, 0].tolist() == [0, 0, 0, 0]
    step = {"op": "resize", "width": 20, "height": 20, "fit": "pad", "fill": "#ff000080"}
    assert pixels(process(tmp_path, of(clear), operations=[step]).data)[0, 0].tolist() == [255, 0, 0, 128]


def test_transparent_colours_of_png_are_kept(tmp_path):
    gray_key, rgb_key = chunk(b"tRNS", struct.pack(">H", 128)), chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
    for data, wanted in (
        (png((2, 1, 8, 0), b"\0\x80\x50", gray_key), [[128, 128, 128, 0], [80, 80, 80, 255]]),
        (png((2, 1, 4, 0), b"\0\x85", chunk(b"tRNS", b"\0\x08")), [[136, 136, 136, 0], [85, 85, 85, 255]]),
        (png((2, 1, 2, 0), b"\0\x90", chunk(b"tRNS", b"\0\x02")), [[170, 170, 170, 0], [85, 85, 85, 255]]),
        (png((2, 1, 1, 0), b"\0\x80", chunk(b"tRNS", b"\0\x01")), [[255, 255, 255, 0], [0, 0, 0, 255]]),
        (png((2, 1, 8, 2), b"\0\1\2\3\1\2\4", rgb_key), [[1, 2, 3, 0], [1, 2, 4, 255]]),
        (png((2, 1, 8, 3), b"\0\0\1", palette, chunk(b"tRNS", b"\x40")), [[255, 0, 0, 64], [0, 255, 0, 255]]),
        (png((2, 1, 8, 3), b"\0\0\1", palette, chunk(b"tRNS", b"\xff\0")), [[255, 0, 0, 255], [0, 255, 0, 0]]),
        (png((2, 1, 8, 4), b"\0\x80\x40\x50\xff"), [[128, 128, 128, 64], [80, 80, 80, 255]]),
    ):
        output = process(tmp_path, data)
        result = pixels(output.data)[0].tolist()
        assert [pixel if pixel[3] else [*wanted[at][:3], 0] for at, pixel in enumerate(result)] == wanted
    gif = process(tmp_path, saved(Image.fromarray(np.array([[0, 1]], np.uint8), "P"), "GIF", transparency=1))
    assert pixels(gif.data)[0, :, 3].tolist() == [255, 0] and gif.info["format"] == "png"


def test_transparent_colours_and_alpha_of_sixteen_bits_are_kept(tmp_path):
    gray = png((2, 1, 16, 0), b"\0\x12\x34\x56\x78", chunk(b"tRNS", b"\x12\x34"))
    assert pixels(process(tmp_path, gray).data)[0, :, 3].tolist() == [0, 65_535]
    assert pixels(process(tmp_path, gray).data)[0, 1, :3].tolist() == [0x5678] * 3
    rgb = png((2, 1, 16, 2), b"\0" + struct.pack(">6H", 1, 2, 3, 1, 2, 4), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert pixels(process(tmp_path, rgb).data)[0, :, 3].tolist() == [0, 65_535]
    with_alpha = png((2, 1, 16, 4), b"\0" + struct.pack(">4H", 1000, 300, 2000, 65_535))
    assert pixels(process(tmp_path, with_alpha).data)[0].tolist() == [
        [1000, 1000, 1000, 300],
        [2000, 2000, 2000, 65_535],
    ]


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_resizing_random_alpha_equals_the_definition(seed, dtype, width, height):
    """Colour times alpha, averaged over the area, divided by the averaged alpha: in exact arithmetic."""
    top = np.iinfo(dtype).max
    image = np.random.default_rng(seed).integers(0, top, (height * 3, width * 2, 4), dtype, endpoint=True)
    image[:, :, 3] = np.where(image[:, :, 3] < top // 3, 0, image[:, :, 3])
    result = on_premultiplied(image, lambda wide: cv2.resize(wide, (width, height), interpolation=cv2.INTER_AREA))
    cells = image.astype(float).reshape(height, 3, width, 2, 4)
    alpha = cells[..., 3].mean(axis=(1, 3))
    colours = (cells[..., :3] * cells[..., 3:]).mean(axis=(1, 3)) / np.maximum(alpha, 1e-9)[..., None]
    assert np.abs(result[:, :, 3] - alpha).max() <= 0.6
    visible = alpha >= 1
    error = np.abs(result[:, :, :3] - colours).max(axis=2)
    assert (error[visible] <= 0.51 + (0.6 if top == 255 else 0.1) * top / alpha[visible]).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]))
@settings(max_examples=40, deadline=None)
def test_premultiplied_and_back_is_the_same_image(seed, dtype):
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (5, 7, 4), dtype, endpoint=True)
    image[:, :, 3] |= 64 if dtype == np.uint8 else 64 * 257
    assert np.abs(straight(premultiplied(image), image.dtype).astype(int) - image).max() <= 0
    assert np.array_equal(flattened(image[:, :, :3], "#ffffff"), image[:, :, :3])


def test_a_tiff_says_that_its_fourth_channel_is_alpha(tmp_path):
    for dtype in (np.uint8, np.uint16):
        image = np.full((5, 7, 4), 77, dtype)
        output = process(tmp_path, cv2.imencode(".png", image)[1].tobytes(), format="tiff")
        assert Image.open(io.BytesIO(output.data)).tag_v2[338] in (2, (2,))
        # Read back as PNG: OpenCV's reader would multiply the colours of 8 bits by their alpha.
        assert np.array_equal(pixels(process(tmp_path, output.data, format="png").data), image)


def test_premultiplied_alpha_of_tiff_is_divided_out(tmp_path):
    """Extra sample 1 is premultiplied alpha, 2 straight alpha, 0 none."""
    values = np.array([[[10_000, 20_000, 30_000, 40_000]]], np.uint16)
    data = cv2.imencode(".tiff", values[:, :, [2, 1, 0, 3]], [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 338)]
    for extra, wanted in (
        (1, [16_384, 32_768, 49_151, 40_000]),
        (2, [10_000, 20_000, 30_000, 40_000]),
        (0, [10_000, 20_000, 30_000]),
    ):
        tags = sorted([*entries, struct.pack("<HHIHH", 338, 3, 1, extra, 0)])
        changed = (
            data[:4]
            + struct.pack("<I", len(data))
            + data[8:]
            + struct.pack("<H", len(tags))
            + b"".join(tags)
            + bytes(4)
        )
        assert pixels(process(tmp_path, changed).data)[0, 0].tolist()[: len(wanted)] == wanted
    eight = saved(Image.frombytes("RGBA", (1, 1), bytes([50, 100, 128, 128])), "TIFF")
    assert pixels(process(tmp_path, eight, format="png").data)[0, 0].tolist() == [50, 100, 128, 128]
