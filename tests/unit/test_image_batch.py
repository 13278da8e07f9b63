"""A batch: one ZIP with every image that could be processed, and a report of those that could not."""

from __future__ import annotations

import io
import json
import zipfile

import cv2
import numpy as np
import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load


def file(width, name="png"):
    image = np.random.default_rng(width).integers(0, 256, (20, width, 3), np.uint8)
    return cv2.imencode(f".{name}", image)[1].tobytes()


@pytest.fixture
def process(tmp_path):
    def call(updates=None, **payload):
        context = Context(cores=1, folder=tmp_path)
        if updates is not None:
            context.progress = lambda fraction, note="": updates.append((fraction, note))
        return load("image_processing")(validate("image_processing", payload), context)

    return call


def opened(output):
    archive = zipfile.ZipFile(io.BytesIO(output.data.read_bytes()))
    assert archive.testzip() is None
    return {name: archive.read(name) for name in archive.namelist()}


def test_each_image_of_a_batch_is_what_it_would_be_alone(process):
    images = {"a.png": file(30), "b.jpg": file(40, "jpeg"), "ü c.webp": file(50, "webp")}
    work = {"width": 16, "operations": [{"op": "rotate", "angle": 90}], "quality": 70}
    updates = []
    output = process(updates, images=images, **work)
    assert output.content_type == "application/zip"
    assert output.info == {"images": 3, "done": 3, "failed": 0, "failures": []}
    files = opened(output)
    assert list(files) == ["a.png", "b.jpg", "ü c.webp", "report.json"]
    report = json.loads(files["report.json"])["images"]
    for entry, (name, data) in zip(report, images.items(), strict=True):
        alone = process(image=data, **work)
        assert files[entry["file"]] == alone.data and entry["name"] == name
        assert entry == {"name": name, "file": entry["file"], "size": len(alone.data), **alone.info}
    fractions = [fraction for fraction, _ in updates]
    assert fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] < 1
    assert {note.partition(":")[0] for _, note in updates} == {f"image {number} of 3" for number in (1, 2, 3)}


def test_the_same_batch_is_the_same_bytes(process):
    images = [file(30), file(40)]
    first = process(images=images, format="webp").data.read_bytes()
    assert process(images=images, format="webp").data.read_bytes() == first
    assert list(opened(process(images=images, format="webp"))) == ["1.webp", "2.webp", "report.json"]


def test_a_corrupt_image_loses_none_of_the_others(process):
    images = {"a.png": file(30), "cut.png": file(40)[:99], "empty": b"", "small.png": file(8), "z.png": file(50)}
    output = process(images=images, operations=[{"op": "crop", "width": 10, "height": 10}])
    files = opened(output)
    assert set(files) == {"a.png", "z.png", "report.json"}
    assert {name: output.info[name] for name in ("images", "done", "failed")} == {"images": 5, "done": 2, "failed": 3}
    assert [(failure["name"], failure["error"].split()[0]) for failure in output.info["failures"]] == [
        ("cut.png", "images.cut.png"), ("empty", "images.empty"), ("small.png", "operations.0.width"),
    ]  # fmt: skip
    report = json.loads(files["report.json"])["images"]
    assert [entry["name"] for entry in report] == list(images)
    assert [entry for entry in report if "error" in entry] == output.info["failures"]


def test_a_batch_without_one_good_image_is_the_inputs_fault(process):
    with pytest.raises(InputFault, match="no image that can be processed; the first: images.0 is empty") as caught:
        process(images=[b"", b"x"])
    assert caught.value.field == "images"


def test_a_wrong_watermark_is_a_fault_of_the_task_and_not_of_each_image(process):
    with pytest.raises(InputFault) as caught:
        process(images=[file(30)], operations=[{"op": "watermark", "image": b"no"}])
    assert caught.value.field == "operations.0.image"


def test_names_that_collide_with_their_new_extension_are_numbered(process):
    output = process(images={"a.png": file(9), "A.jpg": file(10), "report.json": file(11)}, format="png")
    assert list(opened(output)) == ["a.png", "A-2.png", "report.png", "report.json"]


MARK = {"op": "watermark", "image": {"bob": 1}}


@pytest.mark.parametrize(
    ("payload", "field", "problem"),
    [
        ({}, "images", "must be given when image is not"),
        ({"image": b"x", "images": [b"x"]}, "images", "can't be given together with image"),
        ({"images": []}, "images", "at least 1 image"),
        ({"images": [b"x"] * 1001}, "images", "at most 1000 elements"),
        ({"images": {"../a": b"x"}}, "images", "must have file names as names"),
        ({"images": {".hidden": b"x"}}, "images", "must have file names as names"),
        ({"images": {"a\nb": b"x"}}, "images", "must have file names as names"),
        ({"images": [b"x", 3]}, "images.1", "must be"),
        ({"images": {"a.png": {"bob": 1}}}, "images.a.png.blob", "is required"),
        ({"images": [{"bob": 1}]}, "images.0.blob", "is required"),
        ({"image": b"x", "operations": [MARK]}, "operations.0.image.blob", "is required"),
        ({"images": 3}, "images", "must be a list"),
    ],
)
def test_a_wrong_batch_is_refused_by_name(payload, field, problem):
    with pytest.raises(BadInput) as caught:
        validate("image_processing", payload)
    (fault,) = caught.value.faults
    assert fault.field == f"payload.{field}" and problem in fault.problem
