"""Shrinking smooths, by every interpolation but nearest; fit, gravity and enlarging do what they say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mesh.errors import BadInput
from mesh.kinds.image_operations import Resize
from mesh.kinds.image_sizes import placing
from mesh.kinds.table import validate
from tests.images import pixels, process, quadrants, saved

CHECKS = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
SMOOTH = ("linear", "cubic", "area", "lanczos")


@pytest.mark.parametrize("interpolation", [None, *SMOOTH])
@pytest.mark.parametrize("form", ["gray", "colour", "alpha", "half alpha", "16 bits", "16 bits alpha"])
def test_a_pattern_too_fine_for_the_result_becomes_gray(tmp_path, form, interpolation):
    image = CHECKS if form == "gray" else np.dstack([CHECKS] * 3)
    if "alpha" in form:
        image = np.dstack([image, np.full_like(CHECKS, 128 if form == "half alpha" else 255)])
    image = image.astype(np.uint16) * 257 if "16" in form else image
    data = cv2.imencode(".png", image)[1].tobytes()
    for size in ({"width": 50}, {"width": 150, "height": 255, "keep_aspect": False}):
        step = {"op": "resize", **size, **({"interpolation": interpolation} if interpolation else {})}
        result = pixels(process(tmp_path, data, operations=[step]).data) / (257 if "16" in form else 1)
        colours = result[..., :3] if result.ndim == 3 else result
        if size["width"] == 50:
            assert colours.std() < 16 and abs(colours.mean() - 127.5) < 2, (form, interpolation, colours.std())
        else:
            assert colours.std() < 80


def test_one_side_that_shrinks_is_smoothed_while_the_other_grows(tmp_path):
    stripes = np.repeat(CHECKS[:1], 8, axis=0)
    for interpolation in SMOOTH:
        step = {"op": "resize", "width": 50, "height": 16, "keep_aspect": False, "enlarge": True}
        data = saved(Image.fromarray(stripes), "PNG")
        output = process(tmp_path, data, operations=[{**step, "interpolation": interpolation}])
        assert output.info["height"] == 16 and pixels(output.data).std() < 16, interpolation


def test_nearest_picks_pixels_and_mixes_none(tmp_path):
    step = {"op": "resize", "width": 100, "interpolation": "nearest"}
    result = pixels(process(tmp_path, saved(Image.fromarray(CHECKS), "PNG"), operations=[step]).data)
    assert set(np.unique(result)) <= {0, 255}


@pytest.mark.parametrize(
    ("fields", "size", "corners"),
    [
        ({"width": 48, "height": 48}, (48, 32), "RGBW"),
        ({"width": 32, "height": 32, "fit": "cover"}, (32, 32), "RGBW"),
        ({"width": 20, "height": 40, "fit": "cover", "gravity": "left"}, (20, 40), "RRBB"),
        ({"width": 20, "height": 40, "fit": "cover", "gravity": "top-right"}, (20, 40), "GGWW"),
        ({"width": 90, "height": 20, "fit": "cover", "gravity": "bottom"}, (90, 20), "BWBW"),
        ({"width": 48, "height": 60, "fit": "pad", "gravity": "bottom"}, (48, 60), "..BW"),
        ({"width": 60, "height": 32, "fit": "pad", "gravity": "top-left"}, (60, 32), "R.B."),
        ({"width": 200, "height": 200}, (96, 64), "RGBW"),
        ({"width": 200, "height": 200, "enlarge": True}, (200, 133), "RGBW"),
        ({"width": 200, "height": 50, "fit": "cover"}, (96, 50), "RGBW"),
        ({"width": 200, "height": 100, "fit": "pad"}, (200, 100), "...."),
        ({"width": 200, "height": 300, "fit": "cover", "enlarge": True, "gravity": "right"}, (200, 300), "GGWW"),
        ({"width": 200, "height": 10, "keep_aspect": False}, (96, 10), "RGBW"),
        ({"width": 500}, (96, 64), "RGBW"),
    ],
)
def test_fit_gravity_and_enlarge(tmp_path, fields, size, corners):
    """The image has a colour a quadrant; "." is the background."""
    colours = {"R": (220, 30, 30), "G": (30, 200, 30), "B": (30, 30, 220), "W": (240, 240, 240), ".": (1, 2, 3)}
    data = saved(Image.fromarray(quadrants()), "PNG")
    output = process(tmp_path, data, background="#010203", **fields)
    assert (output.info["width"], output.info["height"]) == size
    result = pixels(output.data)
    found = [result[0, 0], result[0, -1], result[-1, 0], result[-1, -1]]
    assert [tuple(pixel.tolist()) for pixel in found] == [colours[letter] for letter in corners]
    if fields.get("fit") != "pad":
        short = {name: value for name, value in fields.items() if name != "gravity" or fields.get("fit")}
        alone = process(tmp_path, data, operations=[{"op": "resize", **short}])
        assert np.array_equal(pixels(alone.data), result)


sides = st.integers(1, 3000)


@given(
    size=st.tuples(sides, sides), want=st.tuples(sides, sides), fit=st.sampled_from(["inside", "cover", "pad"]),
    enlarge=st.booleans(), gravity=st.sampled_from(["top-left", "center", "right", "bottom"]),
)  # fmt: skip
@settings(max_examples=300)
def test_a_placing_lies_inside_its_box(size, want, fit, enlarge, gravity):
    chosen = None if fit == "inside" else gravity
    step = Resize(op="resize", width=want[0], height=want[1], fit=fit, enlarge=enlarge, gravity=chosen)
    plan = placing(size, step)
    for axis in (0, 1):
        assert 1 <= plan.size[axis] <= want[axis]
        cut, at = plan.cut[axis], plan.at[axis]
        assert cut >= 0 and at >= 0
        assert fit != "cover" or cut + plan.size[axis] <= plan.scaled[axis]
        assert fit != "pad" or at + plan.scaled[axis] <= plan.size[axis]
        assert enlarge or plan.scaled[axis] <= size[axis]
    if fit == "pad" or (fit == "cover" and enlarge):
        assert plan.size == want
    if fit == "cover":
        assert all(new == min(wanted, scaled) for new, wanted, scaled in zip(plan.size, want, plan.scaled, strict=True))


def test_every_wrong_option_is_named_at_the_door():
    wrong = {
        "image": b"x",
        "width": 9,
        "fit": "cover",
        "gravity": "north",
        "background": "white",
        "colour": "p3",
        "metadata": 1,
    }
    with pytest.raises(BadInput) as caught:
        validate("image_processing", wrong)
    assert {fault.field.removeprefix("payload.") for fault in caught.value.faults} == {
        "fit", "gravity", "background", "colour", "metadata",
    }  # fmt: skip
    for fields, field, problem in (
        ({"width": 9, "gravity": "top"}, "gravity", "applies to fit cover and pad only"),
        ({"width": 9, "fit": "pad"}, "fit", "needs width and height"),
        ({"fit": "cover"}, "fit", "needs width and height"),
        ({"width": 9, "height": 9, "fit": "cover", "keep_aspect": False}, "fit", "keep_aspect false"),
        ({"background": "#00000080"}, "background", ""),
    ):
        with pytest.raises(BadInput) as caught:
            validate("image_processing", {"image": b"x", **fields})
        (fault,) = caught.value.faults
        assert fault.field == f"payload.{field}" and problem in fault.problem
