"""Every image operation compared with direct calls of OpenCV: gray, colour and alpha, 8 and 16 bits a sample."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.image.colours import hue_matrix, saturation_matrix, sepia_matrix, spread_table

BOTH = (np.uint8, np.uint16)


def picture(channels=3, dtype=np.uint8, width=64, height=48):
    """Smooth blobs with noise on them."""
    random = np.random.default_rng(width * height + channels)
    small = random.integers(0, 256, (6, 8, channels), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    image = image.astype(dtype) * (257 if dtype == np.uint16 else 1)
    image ^= random.integers(0, 16, image.shape, dtype=dtype)
    if channels == 4:
        # Pixels without any alpha have tests of their own: tests/unit/test_image_alpha.py.
        image[:, :, 3] = np.maximum(image[:, :, 3], 1)
    return np.ascontiguousarray(image[:, :, 0] if channels == 1 else image)


FORMS = [(channels, dtype) for channels in (1, 3, 4) for dtype in BOTH]
every_form = pytest.mark.parametrize(("channels", "dtype"), FORMS, ids=lambda value: getattr(value, "__name__", value))


@pytest.fixture
def process(tmp_path):
    def call(image, *operations):
        data = cv2.imencode(".png", image)[1].tobytes()
        payload = validate("image_processing", {"image": data, "operations": operations, "format": "png"})
        output = load("image_processing")(payload, Context(cores=1, folder=tmp_path))
        return cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED)

    return call


def on_colours(image, work):
    if image.ndim == 2 or image.shape[2] == 3:
        return work(image)
    return np.dstack([work(np.ascontiguousarray(image[:, :, :3])), image[:, :, 3]])


def on_white(image):
    """Without alpha, laid over white."""
    if image.ndim == 2 or image.shape[2] == 3:
        return image
    top = np.iinfo(image.dtype).max
    share = image[:, :, 3:].astype(float) / top
    return np.rint(top + (image[:, :, :3] - float(top)) * share).astype(image.dtype)


def weighed(image, work):
    """The result of `work` on colours times alpha, in floating point, and the rounding error that it may have."""
    top = np.iinfo(image.dtype).max
    if image.ndim == 2 or image.shape[2] == 3:
        return work(image), np.zeros(1)
    floating = image.astype(np.float32)
    floating[:, :, :3] *= floating[:, :, 3:] / top
    done = work(floating)
    alpha = done[:, :, 3:].clip(0, top)
    done[:, :, :3] = done[:, :, :3].clip(0, alpha) / np.maximum(alpha, 1e-6) * top
    # One level of a colour times its alpha, and half a level.
    error = 0.51 + (0.6 if top == 255 else 2) * top / np.maximum(alpha, 1)
    return np.rint(done.clip(0, top)), np.dstack([np.where(alpha >= 1, error, top)] * 3 + [np.full_like(alpha, 1)])


def gray8(image):
    image = on_white(image)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return image if image.dtype == np.uint8 else (image // 256).astype(np.uint8)


def bilateral(image):
    if image.dtype == np.uint8:
        return cv2.bilateralFilter(image, 7, 40, 9)
    done = cv2.bilateralFilter(image.astype(np.float32), 7, 40 * 257, 9)
    return np.rint(done).clip(0, 65535).astype(np.uint16)


def unsharp(image):
    if image.ndim == 2 or image.shape[2] == 3:
        return cv2.addWeighted(image, 2.5, cv2.GaussianBlur(image, (0, 0), 2.0), -1.5, 0)
    blurred, _ = weighed(image, lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 2.0))
    sharp = np.rint(image[:, :, :3] * 2.5 - blurred[:, :, :3] * 1.5).clip(0, np.iinfo(image.dtype).max)
    return np.dstack([sharp.astype(image.dtype), image[:, :, 3]])


def denoised(image):
    if image.dtype == np.uint16:
        return cv2.fastNlMeansDenoising(image, [5 * 257.0], None, 3, 9, cv2.NORM_L1)
    if image.ndim == 2:
        return cv2.fastNlMeansDenoising(image, None, 5, 3, 9)
    return cv2.fastNlMeansDenoisingColored(image, None, 5, 2, 3, 9)


def on_brightness(image, work):
    if image.ndim == 2:
        return work(image)
    planes = list(cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)))
    planes[0] = work(planes[0])
    return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_YCrCb2BGR)


def turned_by_30(image):
    matrix = cv2.getRotationMatrix2D((31.5, 23.5), 30, 1)
    matrix[:, 2] += (80 - 64) / 2, (74 - 48) / 2
    return cv2.warpAffine(image, matrix, (80, 74), flags=cv2.INTER_CUBIC)


CASES = {
    "resize": ({"width": 20}, lambda i: cv2.resize(i, (20, 15), interpolation=cv2.INTER_AREA)),
    "resize lanczos": (
        {"width": 100, "height": 60, "keep_aspect": False, "enlarge": True, "interpolation": "lanczos"},
        lambda i: cv2.resize(i, (100, 60), interpolation=cv2.INTER_LANCZOS4),
    ),
    "crop": ({"x": 3, "y": 5, "width": 10, "height": 40}, lambda i: i[5:45, 3:13]),
    "crop middle": ({"width": 11, "height": 48}, lambda i: i[:, 26:37]),
    "rotate": ({"angle": 30, "interpolation": "cubic"}, turned_by_30),
    "rotate 90": ({"angle": 90}, np.rot90),
    "rotate -90": ({"angle": -90}, lambda i: np.rot90(i, 3)),
    "rotate 180": ({"angle": -180, "expand": False}, lambda i: np.rot90(i, 2)),
    "rotate 360": ({"angle": 360}, lambda i: i),
    "flip": ({}, lambda i: i[:, ::-1]),
    "flip vertical": ({"direction": "vertical"}, lambda i: i[::-1]),
    "flip both": ({"direction": "both"}, lambda i: i[::-1, ::-1]),
    "blur": ({"radius": 3}, lambda i: cv2.GaussianBlur(i, (7, 7), 0)),
    "blur sigma": ({"radius": 3, "sigma": 4.5}, lambda i: cv2.GaussianBlur(i, (7, 7), 4.5)),
    "blur box": ({"method": "box", "radius": 4}, lambda i: cv2.blur(i, (9, 9))),
    "blur median": ({"method": "median", "radius": 2}, lambda i: cv2.medianBlur(i, 5)),
    "blur bilateral": (
        {"method": "bilateral", "radius": 3, "sigma_colour": 40, "sigma_space": 9},
        lambda i: on_colours(i, bilateral),
    ),
    "sharpen": ({"sigma": 2, "amount": 1.5}, unsharp),
    "edges": (
        {"low": 50, "high": 150, "aperture": 5, "accurate": True},
        lambda i: cv2.Canny(gray8(i), 50, 150, apertureSize=5, L2gradient=True),
    ),
    "threshold": ({"value": 90}, lambda i: cv2.threshold(gray8(i), 90, 255, cv2.THRESH_BINARY)[1]),
    "threshold otsu": (
        {"method": "otsu", "invert": True},
        lambda i: cv2.threshold(gray8(i), 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1],
    ),
    "threshold adaptive": (
        {"method": "adaptive", "block": 7, "offset": 3, "weights": "gaussian"},
        lambda i: cv2.adaptiveThreshold(gray8(i), 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 7, 3),
    ),
    "invert": ({}, lambda i: on_colours(i, cv2.bitwise_not)),
    "equalise clahe": (
        {"method": "clahe", "clip_limit": 3, "tiles": 4},
        lambda i: on_colours(i, lambda c: on_brightness(c, cv2.createCLAHE(3, (4, 4)).apply)),
    ),
    "denoise": (
        {"strength": 5, "colour_strength": 2, "patch": 3, "window": 9},
        lambda i: on_colours(i, denoised),
    ),
}


#: Operations that mix the colours of neighbouring pixels, weighed by their alpha.
MIXING = {"resize", "resize lanczos", "rotate", "blur", "blur sigma", "blur box"}


@every_form
@pytest.mark.parametrize("case", CASES)
def test_pixels_are_opencvs_own(process, case, channels, dtype):
    fields, expected = CASES[case]
    image = picture(channels, dtype)
    result = process(image, {"op": case.split()[0], **fields})
    if case in MIXING:
        wanted, error = weighed(image, expected)
        assert result.dtype == dtype and result.shape == wanted.shape
        assert (np.abs(result.astype(float) - wanted) <= error).all()
        return
    wanted = expected(image)
    assert result.dtype == wanted.dtype
    if case == "sharpen" and channels == 4:
        assert np.abs(result.astype(int) - wanted).max() <= 2
    else:
        assert np.array_equal(result, wanted)


@pytest.mark.parametrize("dtype", BOTH)
def test_an_opaque_image_with_alpha_has_the_pixels_of_one_without(process, dtype):
    image = picture(3, dtype)
    opaque = np.dstack([image, np.full(image.shape[:2], np.iinfo(dtype).max, dtype)])
    for case in sorted(MIXING - {"rotate"}):
        step = {"op": case.split()[0], **CASES[case][0]}
        result = process(opaque, step)
        assert np.array_equal(result[:, :, :3], process(image, step)) and (result[:, :, 3] == opaque[0, 0, 3]).all()


@pytest.mark.parametrize("dtype", BOTH)
def test_sharpen_leaves_differences_below_the_threshold(process, dtype):
    image = picture(3, dtype)
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0)
    near = np.abs(image.astype(int) - blurred) <= 6 * (257 if dtype == np.uint16 else 1)
    result = process(image, {"op": "sharpen", "threshold": 6})
    assert near.any() and not near.all()
    assert np.array_equal(result, np.where(near, image, cv2.addWeighted(image, 2, blurred, -1, 0)))


@every_form
def test_colour_applies_the_css_filters_one_after_the_other(process, channels, dtype):
    image = picture(channels, dtype)
    top = np.iinfo(dtype).max

    def toned(colours):
        value = np.clip(colours / top * 1.2, 0, 1)
        return np.rint(np.clip((value - 0.5) * 0.8 + 0.5, 0, 1) ** (1 / 2.2) * top).astype(dtype)

    tones = {"brightness": 1.2, "contrast": 0.8, "gamma": 2.2}
    assert np.array_equal(process(image, {"op": "color", **tones}), on_colours(image, toned))
    result = process(image, {"op": "colour", **tones, "saturation": 1.5, "hue": 40})
    if channels == 1:
        assert np.array_equal(result, toned(image))
        return
    matrix = hue_matrix(40) @ saturation_matrix(1.5)
    assert np.array_equal(result, on_colours(image, lambda colours: cv2.transform(toned(colours), matrix)))


def test_the_matrices_are_those_of_css():
    """Known values: no change, gray, a whole turn; CSS' sepia of white; hue-rotate(180deg) of red."""
    assert np.allclose(saturation_matrix(1), np.eye(3)) and np.allclose(hue_matrix(360), np.eye(3))
    assert np.allclose(saturation_matrix(0), [[0.072, 0.715, 0.213]] * 3)
    assert np.allclose(sepia_matrix(0), np.eye(3))
    assert np.allclose(sepia_matrix(1) @ [1, 1, 1], [0.937, 1.203, 1.351])
    assert np.allclose(hue_matrix(180) @ [0, 0, 1], [0.426, 0.426, -0.574], atol=1e-9)
    assert np.allclose(hue_matrix(90) @ hue_matrix(90), hue_matrix(180), atol=2e-3)


@every_form
def test_sepia_and_grayscale_change_the_channels_by_their_matrices(process, channels, dtype):
    image = picture(channels, dtype)
    colours = image if channels > 1 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    wanted = on_colours(colours, lambda colours: cv2.transform(colours, sepia_matrix(0.7)))
    assert np.array_equal(process(image, {"op": "sepia", "amount": 0.7}), wanted)
    result = process(image, {"op": "greyscale"})
    wanted = image if channels == 1 else cv2.cvtColor(on_white(image), cv2.COLOR_BGR2GRAY)
    assert np.abs(result.astype(int) - wanted).max() <= (1 if channels == 4 else 0)
    assert result.dtype == dtype


@every_form
def test_equalise_is_opencvs_and_follows_the_same_rule_in_16_bits(process, channels, dtype):
    image = picture(channels, dtype)
    work = cv2.equalizeHist if dtype == np.uint8 else lambda plane: spread_table(plane)[plane]
    wanted = on_colours(image, lambda colours: on_brightness(colours, work))
    assert np.array_equal(process(image, {"op": "equalize"}), wanted)


def test_the_rule_for_16_bits_gives_the_result_of_equalize_hist_in_8():
    flat = np.full((4, 4), 77, np.uint8)
    for image in (picture(1), flat, np.arange(256, dtype=np.uint8).reshape(16, 16), picture(1) // 90):
        assert np.array_equal(spread_table(image)[image], cv2.equalizeHist(image))


def test_a_quarter_turn_that_keeps_the_size_moves_pixels_only(process):
    image = picture(4)
    result = process(image, {"op": "rotate", "angle": 90, "expand": False})
    assert result.shape == image.shape
    assert np.array_equal(result[:, 8:56], np.rot90(image)[8:56])
    assert not result[:, :8].any() and not result[:, 56:].any()
    tall = process(np.rot90(image).copy(), {"op": "rotate", "angle": -90, "expand": False, "fill": "#ff800080"})
    assert np.array_equal(tall[8:56], image[:, 8:56]) and (tall[:8] == (0, 128, 255, 128)).all()


@every_form
def test_corners_are_filled_with_the_colour_in_the_bit_depth_of_the_image(process, channels, dtype):
    result = process(picture(channels, dtype), {"op": "rotate", "angle": 45, "fill": "#ff8000"})
    unit = 257 if dtype == np.uint16 else 1
    gray = round((0.299 * 255 + 0.587 * 128) * unit)
    wanted = {1: gray, 3: (0, 128 * unit, 255 * unit), 4: (0, 128 * unit, 255 * unit, 255 * unit)}[channels]
    assert np.array_equal(result[0, 0], wanted)


def test_an_operation_that_does_not_fit_the_image_names_its_field(process):
    deep = picture(3, np.uint16)
    blur = {"op": "blur", "method": "median", "radius": 3}
    for image, operation, field in (
        (deep, blur, "radius"),
        (deep, {"op": "crop", "width": 65, "height": 1}, "width"),
        (deep, {"op": "crop", "width": 4, "height": 4, "y": 45}, "height"),
        (np.zeros((2, 60_000), np.uint8), {"op": "rotate", "angle": 45}, "angle"),
    ):
        with pytest.raises(InputFault) as caught:
            process(image, {"op": "flip"}, operation)
        assert caught.value.field == f"operations.1.{field}"
    assert process(picture(), blur).shape == (48, 64, 3)


def test_wrong_values_are_refused_before_any_work_each_by_name():
    wrong = [
        {"op": "blur", "method": "median", "radius": 128},
        {"op": "blur", "method": "bilateral", "radius": 26},
        {"op": "threshold", "block": 4},
        {"op": "denoise", "patch": 6, "window": 51},
        {"op": "watermark"},
        {"op": "watermark", "text": "a", "image": b"b"},
        {"op": "watermark", "text": "a\nb"},
        {"op": "rotate", "angle": float("nan")},
        {"op": "colour", "hue": "red", "gamma": 0},
        {"op": "rotate", "angle": 1, "fill": "red"},
        {"op": "resize", "width": 9, "fit": "cover"},
        {"op": "resize", "width": 9, "height": 9, "gravity": "top", "fill": "#123456"},
        {"op": "resize", "width": 9, "height": 9, "fit": "pad", "keep_aspect": False},
    ]
    with pytest.raises(BadInput) as caught:
        validate("image_processing", {"image": b"x", "operations": wrong})
    assert [fault.field.removeprefix("payload.operations.") for fault in caught.value.faults] == [
        "0.radius", "1.radius", "2.block", "3.patch", "3.window", "4.image", "5.image", "6.text", "7.angle",
        "8.gamma", "8.hue", "9.fill", "10.fit", "11.gravity", "11.fill", "12.fit",
    ]  # fmt: skip
