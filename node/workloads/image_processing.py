"""image_processing: decodes, processes and encodes images with OpenCV, with exactly OpenCV's pixels.

Alpha and 16-bit samples are dropped where the output format or an operation does not support them; metadata always is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesh.kinds.image_processing import ImageProcessingPayload
from mesh.kinds.image_sizes import Misfit, after_all, check_format
from node.executor.context import Context, InputFault, Output
from node.workloads.image.batch import Done, run_batch
from node.workloads.image.files import check_writer, decode, encode, open_library
from node.workloads.image.header import read_header
from node.workloads.image.operations import Steps, apply_all, faults, watermark_images
from node.workloads.image.pixels import channels, size_of

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image

#: Maximum pixels of all watermarks of a task, which stay in memory while its images are processed.
MAX_MARK_PIXELS = 16_000_000


def run(payload: ImageProcessingPayload, context: Context) -> Output:
    """The processed image, or the ZIP of the batch (see `batch.run_batch`).

    info of an image: width, height, channels, format, input_format, input_width, input_height.
    Raises: InputFault when `image` is damaged, unsupported or too large, or an operation does not fit it.
    """
    open_library(context.cores)
    if payload.format:
        check_writer(payload.format)
    steps = payload.steps
    marks = _marks(steps, context)

    def process(data: Any, field: str, part: Context) -> Done:
        return _process(part.read(data, field), field, payload, (steps, marks), part)

    if payload.images is not None:
        return run_batch(payload, context, process)
    done = process(payload.image, "image", context)
    return Output(done.data, f"image/{done.format}", done.info)


def _process(
    data: bytes,
    field: str,
    payload: ImageProcessingPayload,
    work: tuple[Steps, Mapping[str, Image]],
    context: Context,
) -> Done:
    steps, marks = work
    image, header = decode(data, field)
    del data
    name = payload.format or header.format
    try:
        check_format(after_all(size_of(image), steps), name)
    except Misfit as error:
        raise InputFault(error.field, error.problem) from None
    image = apply_all(image, steps, marks, context)
    with faults(""):
        encoded = encode(image, name, payload.quality)
    width, height = size_of(image)
    info = {
        "width": width,
        "height": height,
        "channels": channels(image),
        "format": name,
        "input_format": header.format,
        "input_width": header.width,
        "input_height": header.height,
    }
    return Done(encoded, name, info)


def _marks(steps: Steps, context: Context) -> dict[str, Image]:
    """Prefix of a watermark's fields -> its decoded image. Raises: InputFault naming the operation's field."""
    decoded: dict[str, Image] = {}
    remaining = MAX_MARK_PIXELS
    for prefix, file in watermark_images(steps).items():
        field = f"{prefix}image"
        data = context.read(file, field)
        header = read_header(data, field)
        remaining -= header.width * header.height
        if remaining < 0:
            limit = MAX_MARK_PIXELS // 1_000_000
            raise InputFault(field, f"is too large: a task's watermarks have at most {limit} million pixels together")
        decoded[prefix] = decode(data, field)[0]
    return decoded
