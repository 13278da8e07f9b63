"""Make the files that the examples of the documents use: photo.jpg, photos/ and holiday.mov, in this folder.

The mesh makes them, as tasks. A file that exists already is kept.
"""

from __future__ import annotations

import argparse
import colorsys
import struct
import zlib
from pathlib import Path
from typing import Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.results import chunks, save, wait_for_end

HELP = "make the files that the examples use: photo.jpg, photos/, holiday.mov"
#: Photographs in photos/.
PHOTOS = 4
#: Of the tiny picture that becomes a photograph of soft colours when it is enlarged, pixels.
WIDTH, HEIGHT = 8, 6


def add(parser: argparse.ArgumentParser) -> None:
    """`sample [FOLDER]`"""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=Path(), help="where [this folder]")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Make those that are missing. Raises: BusUnavailable, TaskFailed, OSError."""
    from mesh.client import Mesh

    made, kept = list[str](), list[str]()
    async with Mesh(args.url) as mesh:
        for name, (kind, payload) in files().items():
            target = args.folder / name
            if target.exists():
                kept.append(str(target))
                continue
            for warning in await mesh.warnings(kind):
                out.note(f"queztl: {warning}")
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = await mesh.start(kind, payload)
            end = await wait_for_end(out, mesh, handle.id, None)
            await save(chunks(mesh, end), target)
            made.append(str(target))
            out.line(str(target))
    if out.as_json:
        out.document({"made": made, "kept": kept})
    elif kept:
        out.note(f"kept, because they exist: {', '.join(kept)}")
    return OK


def files() -> dict[str, tuple[str, dict[str, Any]]]:
    """File name -> the kind and the payload of the task that makes it. Pure."""
    names = ["photo.jpg", *(f"photos/{number}.jpg" for number in range(1, PHOTOS + 1))]
    work = {"width": 1600, "enlarge": True, "format": "jpeg"}
    photos = {
        name: ("image_processing", {"image": picture(number / len(names)), **work}) for number, name in enumerate(names)
    }
    return photos | {"holiday.mov": ("video_encode_h264", {"seconds": 3, "resolution": "640x360"})}


def picture(hue: float) -> bytes:
    """A tiny PNG with colours around `hue`, 0 to 1. Pure."""
    rows = b"".join(
        b"\0" + b"".join(_colour(hue + column / WIDTH / 3, 1 - row / HEIGHT / 2) for column in range(WIDTH))
        for row in range(HEIGHT)
    )
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def _colour(hue: float, value: float) -> bytes:
    return bytes(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, 0.6, value))
