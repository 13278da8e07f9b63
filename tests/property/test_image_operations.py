"""Any list of image operations gives an image of the predicted size, or a fault that names its field; never a crash."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.errors import BadInput
from mesh.kinds.image_operations import MAX_SIDE, Crop, Rotate
from mesh.kinds.image_sizes import MAX_PIXELS, Misfit, after, after_all, corner
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.image.batch import file_name
from node.workloads.image.header import read_header
from node.workloads.image.watermark import place
from tests.examples import examples

small = st.integers(1, 40)
colour = st.sampled_from(["#000000", "#ff8000", "#12345678"])
unit = st.floats(0, 1)
factor = st.floats(0, 10)
letters = st.text(st.characters(categories=["L", "N", "S", "P"]), min_size=1, max_size=8)


def op(name: str, required: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An operation of that name with any of its fields."""
    return st.fixed_dictionaries({"op": st.just(name), **required}, optional=fields)


@cache
def mark() -> bytes:
    """A small image with alpha, as a file."""
    return cv2.imencode(".png", np.full((3, 5, 4), 130, np.uint8))[1].tobytes()


interpolation = st.sampled_from(["nearest", "linear", "cubic", "area", "lanczos"])
angles = st.sampled_from([0, 90, -90, 180, 270, 360, 45]) | st.floats(-360, 360)
steps = st.one_of(
    op(
        "resize", {"width": small}, height=small, keep_aspect=st.booleans(), interpolation=interpolation,
        enlarge=st.booleans(), fit=st.sampled_from(["inside", "cover", "pad"]), fill=colour,
        gravity=st.sampled_from(["top-left", "center", "bottom"]),
    ),
    op("resize", {"height": small | st.just(MAX_SIDE)}, enlarge=st.booleans()),
    op("crop", {"width": small, "height": small}, x=small, y=small),
    op(
        "rotate", {"angle": angles}, expand=st.booleans(), fill=colour,
        interpolation=st.sampled_from(["nearest", "linear", "cubic", "lanczos"]),
    ),
    op("flip", {}, direction=st.sampled_from(["horizontal", "vertical", "both"])),
    op(
        "blur", {}, radius=st.integers(1, 60), method=st.sampled_from(["gaussian", "median", "bilateral", "box"]),
        sigma=st.floats(0.01, 250), sigma_colour=st.floats(0.01, 255), sigma_space=st.floats(0.01, 250),
    ),
    op("sharpen", {}, sigma=st.floats(0.1, 50), amount=factor, threshold=st.integers(0, 255)),
    op(
        "edges", {}, low=st.floats(0, 10_000), high=st.floats(0, 10_000), accurate=st.booleans(),
        aperture=st.sampled_from([3, 5, 7]),
    ),
    op(
        "threshold", {}, method=st.sampled_from(["fixed", "otsu", "adaptive"]), value=st.integers(0, 255),
        block=st.integers(1, 49).map(lambda half: 2 * half + 1), offset=st.floats(-255, 255),
        weights=st.sampled_from(["mean", "gaussian"]),
        invert=st.booleans(),
    ),
    op(
        "colour", {}, brightness=factor, contrast=factor, gamma=st.floats(0.05, 20), saturation=factor,
        hue=st.floats(-360, 360),
    ),
    op("grayscale", {}),
    op("sepia", {}, amount=unit),
    op("invert", {}),
    op(
        "equalise", {}, method=st.sampled_from(["global", "clahe"]), clip_limit=st.floats(0.01, 100),
        tiles=st.integers(1, 64),
    ),
    op(
        "denoise", {}, strength=st.floats(0.01, 100), patch=st.sampled_from([3, 5]),
        window=st.sampled_from([3, 7, 9]), colour_strength=st.floats(0.01, 100),
    ),
    op(
        "watermark", {"text": letters}, opacity=unit, scale=st.floats(0.01, 1), margin=st.integers(0, 60),
        position=st.sampled_from(["top-left", "top", "center", "left", "bottom-right"]), colour=colour,
    ),
    op("watermark", {"image": st.builds(mark)}, opacity=unit, scale=st.floats(0.01, 1), margin=st.integers(0, 60)),
)  # fmt: skip


def picture(width: int, height: int, channels: int, deep: bool, seed: int) -> np.ndarray:
    """An image of noise."""
    dtype = np.uint16 if deep else np.uint8
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def names_a_median(field: str, listed: list[dict[str, Any]]) -> bool:
    """Whether `field` is the radius of a median, which 16-bit images may refuse."""
    _, place, name = field.split(".")
    return name == "radius" and listed[int(place)]["method"] == "median"


@given(
    size=st.tuples(small, small),
    channels=st.sampled_from([1, 3, 4]),
    deep=st.booleans(),
    listed=st.lists(steps, max_size=5),
    name=st.sampled_from(["jpeg", "png", "webp", "tiff", "bmp"]),
    seed=st.integers(0, 1000),
)
@example((1, 1), 4, True, [{"op": "denoise", "strength": 100.0, "window": 9}], "png", 0)
@example((1, 40), 1, False, [{"op": "watermark", "text": "© g"}, {"op": "rotate", "angle": 1e-9}], "png", 0)
@example((2, 2), 3, False, [{"op": "resize", "height": MAX_SIDE, "width": MAX_SIDE, "enlarge": True}], "webp", 0)
@example((1, 1), 1, False, [{"op": "resize", "height": MAX_SIDE, "enlarge": True}], "webp", 0)
@settings(max_examples=examples(200))
def test_any_list_gives_the_predicted_size_or_a_named_fault(size, channels, deep, listed, name, seed):
    source = picture(*size, channels, deep, seed)
    data = cv2.imencode(".png", source)[1].tobytes()
    given_ = {"image": data, "operations": listed, "format": name}
    try:
        payload = validate("image_processing", given_)
    except BadInput as error:
        assert all(fault.field.startswith("payload.operations.") for fault in error.faults)
        return
    try:
        predicted = after_all(size, payload.steps)
    except Misfit as error:
        predicted = error
    with tempfile.TemporaryDirectory() as folder:
        try:
            output = load("image_processing")(payload, Context(1, Path(folder)))
        except InputFault as fault:
            if isinstance(predicted, Misfit):
                assert (fault.field, fault.problem) == (predicted.field, predicted.problem)
            else:
                is_text = fault.field.endswith(".text") and "can't be drawn here" in fault.problem
                assert is_text or fault.field == "format" or names_a_median(fault.field, listed)
            return
    assert (output.info["width"], output.info["height"]) == predicted
    decoded = cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (decoded.shape[1], decoded.shape[0]) == predicted


MAGIC = (b"II*\x00", b"MM\x00*", b"BM", b"\x00\x00\x00\x1cftypavif", b"\xff\xd8\xff", b"RIFF\x20\0\0\0WEBP")


@cache
def whole(name: str) -> bytes:
    """A small file of that format."""
    return cv2.imencode(f".{name}", picture(9, 7, 3, False, 1))[1].tobytes()


@given(
    start=st.sampled_from(MAGIC) | st.builds(whole, st.sampled_from(["tiff", "bmp", "avif"])),
    noise=st.binary(max_size=80),
    at=st.integers(0, 400),
)
@settings(max_examples=examples(300))
def test_noise_after_a_valid_signature_is_a_fault_or_a_size(start, noise, at):
    for data in (start + noise, start[:at] + noise, start[:at] + noise + start[at + len(noise) :]):
        try:
            header = read_header(data, "image")
        except InputFault as fault:
            assert fault.field == "image"
        else:
            assert 0 < header.width * header.height <= MAX_PIXELS


sides = st.integers(1, MAX_SIDE)


places = st.none() | st.integers(0, 999)


@given(size=st.tuples(sides, sides), wanted=st.tuples(sides, sides), at=st.tuples(places, places))
def test_a_crop_lies_inside_or_names_the_side_that_does_not(size, wanted, at):
    step = Crop(op="crop", width=wanted[0], height=wanted[1], x=at[0], y=at[1])
    fits = [(place or 0) + side <= available for available, side, place in zip(size, wanted, at, strict=True)]
    try:
        x, y = corner(size, step)
    except Misfit as error:
        assert error.field == ("height" if fits[0] else "width") and not all(fits)
    else:
        assert all(fits) and x + wanted[0] <= size[0] and y + wanted[1] <= size[1]
        assert at[0] in (None, x) and at[1] in (None, y)


@given(size=st.tuples(sides, sides), angle=angles, expand=st.booleans())
def test_a_rotated_image_holds_the_whole_and_no_more_than_its_diagonal(size, angle, expand):
    try:
        new = after(size, Rotate(op="rotate", angle=angle, expand=expand))
    except Misfit as error:
        assert error.field == "angle" and "too large" in error.problem
        return
    assert new[0] * new[1] <= MAX_PIXELS and max(new) <= MAX_SIDE
    if not expand:
        assert new == size
        return
    diagonal = float(np.hypot(*size))
    assert min(size) - 1e-3 <= min(new) and max(new) <= np.ceil(diagonal)
    if angle % 180 == 0:
        assert new == size
    elif angle % 90 == 0:
        assert new == size[::-1]


@given(
    size=st.tuples(sides, sides), share=st.tuples(unit, unit), margin=st.integers(0, MAX_SIDE),
    position=st.sampled_from(["top-left", "top", "top-right", "left", "center", "right", "bottom", "bottom-right"]),
)  # fmt: skip
def test_a_mark_that_fits_lies_inside(size, share, margin, position):
    marked = max(1, int(size[0] * share[0])), max(1, int(size[1] * share[1]))
    x, y = place(position, margin, size, marked)
    assert 0 <= x <= size[0] - marked[0] and 0 <= y <= size[1] - marked[1]


@given(st.lists(st.sampled_from(["a.png", "A.jpg", "a", "a-2.png", "b.tar.gz", "report.json"]), max_size=12))
def test_results_of_a_batch_never_share_a_name(names):
    taken: set[str] = set()
    for name in names:
        file = file_name(name, "png", taken)
        assert file.endswith(".png") and file.casefold() not in taken
        taken.add(file.casefold())
