"""A batch of images: one ZIP with the results and a report, in which a corrupt image loses none of the others.

The ZIP is written on disk, an image at a time, in the order given, and holds no time: the same batch gives the same
bytes on any node with the same libraries.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from mesh.kinds.image_processing import ImageProcessingPayload
from node.executor.context import Context, InputFault, Output

REPORT = "report.json"
EXTENSIONS = {"jpeg": ".jpg"}
#: Failures that the result itself names; the report in the ZIP has all.
TOLD = 20


@dataclass(frozen=True)
class Done:
    """One processed image."""

    data: bytes
    format: str
    info: dict[str, Any]


One = Callable[[Any, str, Context], Done]
"""one(data, field, context): processes an image. Raises: InputFault."""


def run_batch(payload: ImageProcessingPayload, context: Context, one: One) -> Output:
    """The ZIP; info: images, done, failed, failures (the first 20).

    Raises: InputFault when not a single image could be processed.
    """
    batch = payload.batch
    target = context.folder / "images.zip"
    report: list[dict[str, Any]] = []
    names: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, (field, name, data) in enumerate(batch):
            try:
                done = one(data, field, replace(context, progress=_part(context, index, len(batch))))
            except InputFault as fault:
                report.append({"name": name, "error": f"{fault.field} {fault.problem}"})
                continue
            file = file_name(name, done.format, names)
            names.add(file.casefold())
            archive.writestr(zipfile.ZipInfo(file), done.data)
            report.append({"name": name, "file": file, "size": len(done.data), **done.info})
        archive.writestr(zipfile.ZipInfo(REPORT), json.dumps({"images": report}, indent=1, ensure_ascii=False))
    failures = [{"name": entry["name"], "error": entry["error"]} for entry in report if "error" in entry]
    if len(failures) == len(batch):
        raise InputFault("images", f"has none that could be processed; of the first: {failures[0]['error']}")
    counts = {"images": len(batch), "done": len(batch) - len(failures), "failed": len(failures)}
    return Output(target, "application/zip", {**counts, "failures": failures[:TOLD]})


def file_name(name: str, format_name: str, taken: set[str]) -> str:
    """The name of a result: the input's with the format's ending, numbered where that is taken (pure).

    `taken` holds case-folded names: on some file systems upper and lower case are the same.
    """
    ending = EXTENSIONS.get(format_name, f".{format_name}")
    stem = PurePosixPath(name).stem
    wanted, number = f"{stem}{ending}", 2
    while wanted.casefold() in taken:
        wanted, number = f"{stem}-{number}{ending}", number + 1
    return wanted


def _part(context: Context, index: int, count: int) -> Callable[..., None]:
    def progress(fraction: float, note: str = "") -> None:
        context.progress((index + fraction) / count, f"image {index + 1} of {count}: {note}")

    return progress
