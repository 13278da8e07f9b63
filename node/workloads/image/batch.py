"""Processes a batch of images into one ZIP with the results and a report; a corrupt image does not affect the others.

The ZIP is written to disk image by image, in the order of the payload and without times: the same batch gives the same
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
#: Maximum number of failures in the result; the report in the ZIP lists all.
MAX_FAILURES = 20


@dataclass(frozen=True)
class Done:
    """One processed image."""

    data: bytes
    format: str
    info: dict[str, Any]


Process = Callable[[Any, str, Context], Done]
"""process(data, field, context): processes one image. Raises: InputFault."""


def run_batch(payload: ImageProcessingPayload, context: Context, process: Process) -> Output:
    """The ZIP; info: images, done, failed, failures (the first 20).

    Raises: InputFault when no image could be processed.
    """
    batch = payload.batch
    target = context.folder / "images.zip"
    report: list[dict[str, Any]] = []
    names: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, (field, name, data) in enumerate(batch):
            try:
                done = process(data, field, replace(context, progress=_part(context, index, len(batch))))
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
        raise InputFault("images", f"contains no image that can be processed; the first: {failures[0]['error']}")
    counts = {"images": len(batch), "done": len(batch) - len(failures), "failed": len(failures)}
    return Output(target, "application/zip", {**counts, "failures": failures[:MAX_FAILURES]})


def file_name(name: str, format_name: str, taken: set[str]) -> str:
    """The file name of a result: the input's name with the format's extension, numbered if that is taken (pure).

    `taken` contains case-folded names, as some file systems ignore case.
    """
    extension = EXTENSIONS.get(format_name, f".{format_name}")
    stem = PurePosixPath(name).stem
    file, number = f"{stem}{extension}", 2
    while file.casefold() in taken:
        file, number = f"{stem}-{number}{extension}", number + 1
    return file


def _part(context: Context, index: int, count: int) -> Callable[..., None]:
    def progress(fraction: float, note: str = "") -> None:
        context.progress((index + fraction) / count, f"image {index + 1} of {count}: {note}")

    return progress
