"""Watermarks: position, opacity, and the effect on gray, alpha and 16-bit images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.image.watermark import text_mask, undrawable


def file(image, name="png"):
    return cv2.imencode(f".{name}", image)[1].tobytes()


@pytest.fixture
def mark_up(tmp_path):
    def call(base, **fields):
        operation = {"op": "watermark", **fields}
        payload = validate("image_processing", {"image": file(base), "operations": [operation], "format": "png"})
        output = load("image_processing")(payload, Context(cores=1, folder=tmp_path))
        return cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED)

    return call


BASE = np.full((100, 200, 3), (10, 20, 30), np.uint8)
#: The left half is opaque red, the right half is transparent.
MARK = np.zeros((20, 40, 4), np.uint8)
MARK[:, :20] = (0, 0, 200, 255)


def test_an_image_covers_by_its_alpha_and_the_opacity(mark_up):
    result = mark_up(BASE, image=file(MARK), scale=0.2, margin=5, opacity=0.5)
    wanted = BASE.copy()
    wanted[75:95, 155:175] = (5, 10, 115)
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize(
    ("position", "corner"),
    [("top-left", (5, 7)), ("top", (80, 7)), ("right", (155, 40)), ("center", (80, 40)), ("bottom-left", (5, 73))],
)
def test_a_position_is_a_corner_a_side_or_the_middle(mark_up, position, corner):
    image = file(np.full((20, 40), 255, np.uint8))
    margin = 5 if position in ("top-left", "right", "bottom-left") else 7
    result = mark_up(BASE, image=image, scale=0.2, margin=margin, opacity=1, position=position)
    rows, columns = np.nonzero((result == 255).all(axis=2))
    x = corner[0]
    y = {"top-left": 5, "top": 7, "right": 40, "center": 40, "bottom-left": 75}[position]
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (x, y, x + 39, y + 19)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_text_has_the_letters_of_opencv_in_the_colour_and_bit_depth_of_the_image(mark_up, channels, dtype):
    shape = (100, 200) if channels == 1 else (100, 200, channels)
    unit = 257 if dtype == np.uint16 else 1
    image = np.full(shape, 40 * unit, dtype)
    if channels == 4:
        image[:, :, 3] = 255 * unit
    result = mark_up(image, text="Queztl", scale=0.5, opacity=0.8, colour="#ff0000", margin=0, position="top-left")
    mask = text_mask("Queztl", 200, 100, 0.5)
    assert mask.max() == 255 and 90 <= mask.shape[1] <= 110
    share = np.zeros((100, 200))
    share[: mask.shape[0], : mask.shape[1]] = mask / 255 * 0.8
    for place, paint in enumerate([76] if channels == 1 else [0, 0, 255]):
        got = result if channels == 1 else result[:, :, place]
        wanted = 40 * unit + (round(paint * unit) - 40 * unit) * share
        assert np.abs(got - wanted).max() <= unit
    if channels == 4:
        assert (result[:, :, 3] == 255 * unit).all()


def test_on_a_transparent_image_only_the_mark_is_visible(mark_up):
    image = np.zeros((100, 200, 4), np.uint8)
    image[:, :, 1] = 99
    result = mark_up(image, image=file(MARK), scale=0.2, margin=0, opacity=0.5, position="top-left")
    assert (result[:20, :20] == (0, 0, 200, 128)).all()
    assert (result[:, 40:] == (0, 99, 0, 0)).all()


def test_transparent_pixels_do_not_colour_the_edge_of_a_mark(mark_up):
    circle = np.zeros((61, 61, 4), np.uint8)
    cv2.circle(circle, (30, 30), 25, (0, 0, 255, 255), -1)
    for scale in (0.1, 0.5):
        result = mark_up(np.full((100, 100, 3), (0, 0, 255), np.uint8), image=file(circle), scale=scale, opacity=1)
        assert (result == (0, 0, 255)).all()


def test_a_mark_never_exceeds_a_small_image(mark_up):
    for width, height in ((1, 1), (2, 300), (300, 2)):
        image = np.zeros((height, width, 3), np.uint8)
        for fields in ({"text": "© long text 中文"}, {"image": file(MARK)}):
            assert mark_up(image, scale=1, margin=500, **fields).shape == image.shape


def test_a_mark_that_is_no_image_or_a_bomb_names_its_field(mark_up):
    bomb = bytearray(file(MARK))
    bomb[16:24] = (5_000).to_bytes(4, "big") * 2
    for data, problem in (
        (b"<svg/>", "is not a JPEG"),
        (bytes(bomb), "at most 16 million"),
        (file(MARK)[:40], "damaged"),
        ({"blob": "b-gone"}, "does not have"),
    ):
        with pytest.raises(InputFault, match=problem) as caught:
            mark_up(BASE, image=data)
        assert caught.value.field == "operations.0.image"


def test_a_text_is_never_drawn_as_question_marks(mark_up):
    for text, absent in (
        ("🙂", ["🙂 U+1F642"]),
        ("caf\u00e9 🙂 ₿ 🙂", ["🙂 U+1F642", "₿ U+20BF"]),
        ("ქართული", ["ქ U+10E5", "უ U+10E3"]),
        ("สวย", ["ส U+0E2A"]),
    ):
        with pytest.raises(InputFault, match="can't be drawn here") as caught:
            mark_up(BASE, text=text)
        assert caught.value.field == "operations.0.text"
        assert all(name in caught.value.problem for name in absent)
    for text in ("why? \u00a9 2026", "\uff1f", "Grüße, ελληνικά, Привет", "中文 日本語 한국어", "½ € → ✓"):
        assert undrawable(text) == []
        assert (mark_up(BASE, text=text, scale=1) != BASE).any()


def test_a_text_that_is_refused_is_refused_before_any_image_is_read(tmp_path):
    payload = validate("image_processing", {"images": [b"no image"], "operations": [{"op": "watermark", "text": "🙂"}]})
    with pytest.raises(InputFault) as caught:
        load("image_processing")(payload, Context(cores=1, folder=tmp_path))
    assert caught.value.field == "operations.0.text"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("שלום", "is written from right to left, which is not supported (ש U+05E9, ל U+05DC"),
        ("abc سلام", "is written from right to left"),
        ("q\u0323\u0307", "has to be joined to the one before, which is not supported"),
        ("नमस्ते", "has to be joined to the one before"),
        ("❤\ufe0f", "has to be joined to the one before"),
        ("a\u200db", "must be one line of printable characters"),
    ],
)
def test_text_that_must_be_laid_out_is_refused_at_the_door(text, problem):
    with pytest.raises(BadInput) as caught:
        validate("image_processing", {"image": b"x", "operations": [{"op": "watermark", "text": text}]})
    (fault,) = caught.value.faults
    assert fault.field == "payload.operations.0.text" and problem in fault.problem


def test_a_letter_and_its_accent_are_one_character():
    work = {"image": b"x", "operations": [{"op": "watermark", "text": "cafe\u0301"}]}
    assert validate("image_processing", work).operations[0].text == "caf\u00e9"
