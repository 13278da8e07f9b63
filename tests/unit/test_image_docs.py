"""docs/images.md says what becomes of a file: each row of its tables is tried."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mesh.kinds.image_operations import Step
from mesh.kinds.image_processing import READ_ONLY, Format, ImageProcessingPayload
from node.executor.context import InputFault
from node.workloads.image import icc
from node.workloads.image.header import _READERS
from tests.images import chunk, exif, pixels, png, process, quadrants, saved, with_chunks

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "images.md").read_text()
P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


@cache
def table(heading: str) -> tuple[tuple[str, ...], ...]:
    """The rows of the first table under a heading, as cells."""
    lines = DOCS.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")]
    return tuple(rows[2:])


class Fate:
    """Says "kept", "converted", "dropped" or "refused" of each thing a file may have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.picture = Image.fromarray(quadrants())

    def run(self, data, **payload):
        return process(self.folder, data, **{"format": "png", **payload})

    def orientation(self):
        output = self.run(saved(self.picture, "WEBP", exif=exif(6)))
        assert output.info["orientation"] == 6
        return "converted" if output.info["height"] == 96 else "kept"

    def colour_profile(self):
        return self.run(saved(self.picture, "WEBP", icc_profile=self.profile())).info["colour"]

    @staticmethod
    def profile():
        return icc.write_profile("Display P3", icc.srgb_curve(), P3).data

    def colours_without_a_profile(self):
        return self.cicp(12, 13)

    def cicp(self, primaries, transfer):
        data = with_chunks(saved(self.picture, "PNG"), chunk(b"cICP", bytes([primaries, transfer, 0, 1])))
        return self.run(data).info["colour"]

    def hdr_pq_hlg(self):
        assert self.cicp(9, 16) == self.cicp(9, 18)
        return self.cicp(9, 16)

    def cmyk_lab(self):
        assert self.run(saved(self.picture.convert("CMYK"), "JPEG", quality=95)).info["channels"] == 3
        return "converted"

    def gray_profile(self):
        block = icc.write_profile("gray", icc.parametric(1.8), None).data
        output = self.run(saved(self.picture.convert("L"), "PNG", icc_profile=block))
        assert output.info["channels"] == 1
        return output.info["colour"]

    def alpha_transparent_colour(self):
        data = png((2, 1, 8, 0), b"\0\x80\x50", chunk(b"tRNS", struct.pack(">H", 128)))
        return "kept" if pixels(self.run(data).data)[0, :, 3].tolist() == [0, 255] else "dropped"

    def alpha_in_jpeg(self):
        clear = saved(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG")
        shown = pixels(self.run(clear, format="jpeg", background="#0000ff").data)[4, 4]
        return "converted" if np.abs(shown.astype(int) - (0, 0, 255)).max() <= 3 else "dropped"

    def sixteen_bits(self):
        data = png((1, 1, 16, 2), b"\0" + struct.pack(">3H", 1000, 2000, 3001))
        assert pixels(self.run(data, format="bmp").data).dtype == np.uint8
        return "kept" if pixels(self.run(data, format="tiff").data)[0, 0].tolist() == [1000, 2000, 3001] else "dropped"

    def further_frames_and_pages(self):
        info = self.run(saved(self.picture, "TIFF", save_all=True, append_images=[self.picture.copy()])).info
        return "dropped" if (info["frames"], info["kept"]) == (2, 1) else "kept"

    def exif_xmp(self):
        data = saved(self.picture, "JPEG", exif=exif(1))
        assert self.run(data, metadata="keep").info["metadata_kept"] == ["exif"]
        return "dropped" if "exif" in self.run(data).info["metadata_dropped"] else "kept"

    def iptc_comments(self):
        info = self.run(saved(self.picture, "JPEG", comment=b"hello"), metadata="keep").info
        return "dropped" if info["metadata_dropped"] == ["comment"] else "kept"

    def data_after_the_end(self):
        secret = saved(self.picture, "PNG") + b"secret" * 999
        return "kept" if b"secret" in self.run(secret).data else "dropped"

    def damaged_or_missing_data(self):
        data = saved(self.picture.resize((300, 200)), "JPEG")
        return self.refused(data[: len(data) * 3 // 5] + b"\xff\xd9", "damaged")

    def compression_of_tiff(self):
        data = saved(self.picture, "TIFF", compression="zstd")
        return self.refused(
            data.replace(b"\x03\x01\x03\0\x01\0\0\0\x50\xc3", b"\x03\x01\x03\0\x01\0\0\0\x47\x88"), "LERC"
        )

    def refused(self, data, problem):
        with pytest.raises(InputFault, match=problem):
            self.run(data)
        return "refused"


def test_what_becomes_of_a_file_is_what_the_document_says(tmp_path):
    rows = table("From the file to the pixels")
    names = {}
    for thing, fate, _ in rows:
        plain = thing.lower().replace("16 bits per sample", "sixteen bits")
        names[
            "".join(letter if letter.isalnum() else " " for letter in plain)
            .strip()
            .replace("  ", " ")
            .replace(" ", "_")
        ] = fate
    tried = {name for name in vars(Fate) if not name.startswith("_")} - {"run", "profile", "cicp", "refused"}
    assert {name.replace("__", "_") for name in names} == tried
    fates = Fate(tmp_path)
    for name, fate in names.items():
        assert getattr(fates, name.replace("__", "_"))() == fate, name


def test_every_format_and_operation_is_in_the_document():
    formats = {row[0].lower(): (row[1], row[2]) for row in table("Formats")}
    assert set(formats) == set(_READERS)
    assert {name for name, (_, out) in formats.items() if out == "yes"} == set(Format.__args__)
    assert {name: out.removeprefix("no: ").lower() for name, (_, out) in formats.items() if out != "yes"} == READ_ONLY
    operations = {row[0].strip("`"): row[1] for row in table("Operations")}
    models = {model.model_fields["op"].annotation.__args__[0]: model for model in Step.__args__}
    assert set(operations) == set(models)
    for name, model in models.items():
        for field in set(model.model_fields) - {"op"}:
            assert f"`{field}`" in operations[name], (name, field)
    for field in ("background", "colour", "metadata", "fit", "gravity", "enlarge", "quality"):
        assert field in ImageProcessingPayload.model_fields and f"`{field}" in DOCS


def test_a_heic_becomes_a_jpeg_and_a_gif_a_png(tmp_path):
    for name, wanted in (("HEIF", "jpeg"), ("GIF", "png")):
        output = process(tmp_path, saved(Image.fromarray(quadrants()), name))
        assert output.content_type == f"image/{wanted}"
        assert Image.open(io.BytesIO(output.data)).format == wanted.upper()
