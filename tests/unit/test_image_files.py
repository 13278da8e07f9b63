"""Hostile files in every format (bombs, truncated files, polyglots), and what each format can hold."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.image.header import read_header

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("jpeg", "png", "webp", "avif", "tiff", "bmp")


def picture(channels=3, dtype=np.uint8, width=200, height=150):
    random = np.random.default_rng(channels)
    small = random.integers(0, 256, (6, 8, channels), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return (image[:, :, 0] if channels == 1 else image).astype(dtype) * (257 if dtype == np.uint16 else 1)


def file(image, name):
    return cv2.imencode(f".{name}", image)[1].tobytes()


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def process(tmp_path):
    def call(**payload):
        context = Context(cores=1, folder=tmp_path)
        return load("image_processing")(validate("image_processing", payload), context)

    return call


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_and_written(process, name):
    for image in (picture(1), picture(3), picture(4)):
        output = process(image=file(image, name), format="png")
        assert np.array_equal(decoded(output.data), decoded(file(image, name)))
        assert (output.info["input_format"], output.info["width"], output.info["height"]) == (name, 200, 150)
        made = process(image=file(image, "png"), format=name, quality=60)
        assert read_header(made.data).format == name and made.content_type == f"image/{name}"
        assert process(image=made.data).content_type == f"image/{name}"


@pytest.mark.parametrize("name", ["png", "tiff"])
def test_16_bits_are_kept_where_the_format_has_them_and_the_upper_8_elsewhere(process, name):
    for channels in (1, 3, 4):
        image = picture(channels, np.uint16)
        assert np.array_equal(decoded(process(image=file(image, name), format=name).data), image)
        for lesser in ("bmp", "avif", "webp"):
            wanted = decoded(file((image >> 8).astype(np.uint8), lesser)) if lesser == "bmp" else None
            output = process(image=file(image, name), format=lesser)
            assert wanted is None or np.array_equal(decoded(output.data), wanted)
            assert decoded(output.data).dtype == np.uint8


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_quality_decides_the_size(process, name):
    data = file(picture(), "png")
    sizes = [len(process(image=data, format=name, quality=quality).data) for quality in (10, 60, 95)]
    assert sizes == sorted(set(sizes))


def patched(name, width, height):
    """A real file of that format whose header states another size."""
    lossy = [cv2.IMWRITE_WEBP_QUALITY, 80] if name == "webp" else []
    data = bytearray(cv2.imencode(f".{name}", picture(), lossy)[1].tobytes())
    if name == "png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif name == "jpeg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif name == "webp":
        at = data.index(b"VP8 ") + 14
        data[at : at + 4] = struct.pack("<HH", width, height)
    elif name == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif name == "avif":
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    else:
        count_at = struct.unpack("<I", data[4:8])[0]
        for at in range(count_at + 2, len(data) - 12, 12):
            tag = struct.unpack("<H", data[at : at + 2])[0]
            if tag in (256, 257):
                data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_is_refused_by_its_header_before_it_is_decoded(process, name, monkeypatch):
    side = 16_383 if name == "webp" else 60_000
    data = patched(name, side, side)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    # A bitmap is not compressed, so one that is too short for its size is truncated.
    with pytest.raises(InputFault, match="truncated" if name == "bmp" else "limit is 100 million") as caught:
        process(image=data)
    assert caught.value.field == "image"


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_a_false_size_gives_a_fault_or_an_image_of_that_size(process, name):
    for width, height in ((201, 150), (3000, 3000), (1, 1)):
        try:
            output = process(image=patched(name, width, height), format="png")
        except InputFault as fault:
            assert fault.field == "image"
        else:
            assert {output.info["width"], output.info["height"]} == {width, height}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_off_anywhere_is_the_inputs_fault(process, name):
    data = file(picture(), name)
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
        with pytest.raises(InputFault) as caught:
            process(image=data[: int(len(data) * share)])
        assert caught.value.field == "image"


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_overwritten_anywhere_give_a_fault_or_an_image(process, name):
    whole = file(picture(), name)
    random = np.random.default_rng(7)
    for _ in range(40):
        data = bytearray(whole)
        at = int(random.integers(0, len(data) - 8))
        data[at : at + 8] = random.bytes(8)
        try:
            output = process(image=bytes(data), format="png")
        except InputFault as fault:
            assert fault.field == "image"
        else:
            assert output.info["width"] * output.info["height"] <= 100_000_000


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


@pytest.mark.parametrize(
    "data",
    [b"", bytes(100_000), b"\x00", SVG, b"GIF89a" + bytes(99), b"%PDF-1.7", b"\x7fELF" + bytes(99), b"PK\x03\x04" * 9,
     b"#?RADIANCE\n", b"P6 60000 60000 255\n", b"II*\x00" + bytes(60), b"BM" + bytes(60), b"\xff\xd8\xff" + bytes(60),
     b"RIFF\x20\x00\x00\x00WEBPVP8X" + bytes(30), b"\x00\x00\x00\x1cftypavif" + bytes(60), b"8BPS\x00\x01"],
)  # fmt: skip
def test_data_that_is_no_image_is_refused_as_such(process, data):
    with pytest.raises(InputFault) as caught:
        process(image=data)
    assert caught.value.field == "image"


@pytest.mark.parametrize("name", FORMATS)
def test_data_appended_to_an_image_is_not_in_the_output(process, name):
    """The input is an image, an archive and a web page at once; the output has the pixels and nothing else."""
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as archive:
        archive.writestr("secret.html", "<script>alert(1)</script>")
    data = file(picture(), name) + hidden.getvalue()
    try:
        output = process(image=data)
    except InputFault as fault:
        assert name == "avif" and fault.field == "image"
        return
    assert b"secret.html" not in output.data and b"<script>" not in output.data


def test_a_tiff_that_points_at_itself_many_times_is_refused_quickly():
    """The file has two hundred tags, and each claims a quarter of a million values inside the file."""
    entry = struct.pack("<HHII", 273, 4, 250_000, 8)
    data = b"II*\x00" + struct.pack("<IH", 8, 200) + entry * 200 + bytes(1_000_000)
    started = time.process_time()
    with pytest.raises(InputFault, match="damaged"):
        read_header(data)
    assert time.process_time() - started < 0.5


def test_tiffs_of_other_samples_are_refused(process):
    for dtype in (np.float32, np.float64):
        image = picture().astype(dtype)
        with pytest.raises(InputFault, match="unsupported variant"):
            process(image=file(image, "tiff"))


def test_a_format_that_this_opencv_lacks_is_an_import_error(process, monkeypatch):
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: not name.endswith("avif"))
    with pytest.raises(ImportError, match="built without AVIF"):
        process(image=file(picture(), "png"), format="avif")
    assert process(image=file(picture(), "png"), format="webp").data


def test_a_format_that_can_not_hold_the_size_is_refused_before_any_work(process):
    with pytest.raises(InputFault, match="16383 pixels") as caught:
        process(image=file(picture(), "png"), format="webp", width=17_000, height=9, keep_aspect=False, enlarge=True)
    assert caught.value.field == "format"


def test_lack_of_memory_is_a_memory_error():
    """Runs in a process with a memory limit, as a worker has one; OpenCV itself raises another type of error."""
    script = (
        "import resource, cv2, numpy as np\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.context import Context, load\n"
        "cv2.setNumThreads(1)\n"
        "data = cv2.imencode('.png', np.zeros((9, 9, 4), np.uint16))[1].tobytes()\n"
        "used = int(next(line for line in open('/proc/self/status') if line.startswith('VmData')).split()[1]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 400_000_000,) * 2)\n"
        "work = {'image': data, 'width': 9000, 'height': 9000, 'enlarge': True, 'format': 'png'}\n"
        "try: load('image_processing')(validate('image_processing', work), Context(1, Path('.')))\n"
        "except MemoryError: print('memory')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "memory", done.stderr[-2000:]
