"""image_processing compared with direct calls of OpenCV, on whole and damaged files of several formats and sizes."""

import cv2
import numpy as np
import pytest

from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load

FORMATS = ("jpeg", "png", "webp")


def picture(width=64, height=48, channels=3, dtype=np.uint8):
    random = np.random.default_rng(width * height)
    small = random.integers(0, 256, (6, 8, channels), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.astype(dtype) * (257 if dtype == np.uint16 else 1)


def file(image, name="png", *options):
    ok, data = cv2.imencode(f".{name}", image, list(options))
    assert ok
    return data.tobytes()


@pytest.fixture
def process(tmp_path):
    def call(**payload):
        context = Context(cores=1, folder=tmp_path)
        return load("image_processing")(validate("image_processing", payload), context)

    return call


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("name", FORMATS)
def test_conversion_is_opencvs_own(process, name, into):
    data = file(picture(), name)
    output = process(image=data, format=into, quality=80)
    quality = {"jpeg": [cv2.IMWRITE_JPEG_QUALITY, 80], "webp": [cv2.IMWRITE_WEBP_QUALITY, 80], "png": []}[into]
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert output.data == file(decoded, into, *quality)
    assert output.content_type == f"image/{into}"
    assert (output.info["format"], output.info["input_format"]) == (into, name)


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (3, 500), (640, 480)])
def test_each_operation_is_pixel_equal(process, size):
    image = picture(*size)
    data = file(image)
    # OpenCV's area interpolation smooths only if no side grows, so a side that grows is scaled after it.
    shrunk = cv2.resize(image, (min(20, size[0]), min(10, size[1])), interpolation=cv2.INTER_AREA)
    expected = {
        "resize": cv2.resize(shrunk, (20, 10), interpolation=cv2.INTER_LINEAR),
        "blur": cv2.GaussianBlur(image, (7, 7), 0),
        "edges": cv2.Canny(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 50, 150),
        "grayscale": cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    }
    steps = {
        "resize": {"op": "resize", "width": 20, "height": 10, "keep_aspect": False, "enlarge": True},
        "blur": {"op": "blur", "radius": 3},
        "edges": {"op": "edges", "low": 50, "high": 150},
        "grayscale": {"op": "grayscale"},
    }
    for op, wanted in expected.items():
        output = process(image=data, operations=[steps[op]], format="png")
        result = cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(result, wanted), op
        assert (output.info["height"], output.info["width"]) == wanted.shape[:2]
        assert (output.info["input_width"], output.info["input_height"]) == size


def test_operations_compose_in_order_after_the_short_forms(process):
    image = picture()
    output = process(image=file(image), width=32, operations=[{"op": "blur", "radius": 1}, {"op": "grayscale"}])
    by_hand = cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA)
    by_hand = cv2.cvtColor(cv2.GaussianBlur(by_hand, (3, 3), 0), cv2.COLOR_BGR2GRAY)
    assert np.array_equal(cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED), by_hand)
    assert output.info["channels"] == 1
    short = process(image=file(image), blur=2, edges=True, grayscale=True)
    gray = cv2.cvtColor(cv2.GaussianBlur(image, (5, 5), 0), cv2.COLOR_BGR2GRAY)
    assert short.data == file(cv2.Canny(gray, 100, 200))


def test_gray_alpha_and_sixteen_bits_are_kept_where_the_format_has_them(process):
    for image in (picture()[:, :, 0].copy(), picture(channels=4), picture(dtype=np.uint16)):
        data = file(image)
        output = process(image=data)
        assert np.array_equal(cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED), image)
        assert process(image=data, format="jpeg", operations=[{"op": "edges"}]).info["channels"] == 1
        assert process(image=data, format="webp").info["format"] == "webp"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_the_inputs_fault(process, name, share):
    data = file(picture(200, 150), name)
    with pytest.raises(InputFault, match="damaged") as caught:
        process(image=data[: int(len(data) * share)])
    assert caught.value.field == "image"
    assert caught.value.fault.field == "payload.image"


def test_what_is_no_image_is_the_inputs_fault(process):
    for data in (b"", b"hello", b"GIF89a" + bytes(100), b"%PDF-1.7"):
        with pytest.raises(InputFault) as caught:
            process(image=data)
        assert caught.value.field == "image"


def test_a_damaged_body_is_the_inputs_fault(process):
    data = bytearray(file(picture(200, 150)))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    with pytest.raises(InputFault, match="damaged"):
        process(image=bytes(data))


def test_a_bomb_is_refused_before_it_is_decoded(process):
    small = bytearray(file(picture()))
    small[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(InputFault, match="60000 x 60000 pixels; the limit is 100 million"):
        process(image=bytes(small))
    with pytest.raises(InputFault, match="too large") as caught:
        process(image=file(picture()), width=60_000, height=60_000, enlarge=True)
    assert caught.value.field == "width"


def test_a_blob_the_mesh_does_not_hold_is_the_inputs_fault(process):
    with pytest.raises(InputFault, match="b-gone, which the mesh does not have"):
        process(image={"blob": "b-gone"})
