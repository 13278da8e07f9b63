"""image_processing: decode, operate, encode with OpenCV; the pixels are those OpenCV itself would give.

What the result's format or an operation can't hold (alpha in a JPEG, 16 bits in a WebP) is dropped, metadata too.
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

#: All watermarks of a task together: they are held while every image is processed.
MAX_MARK_PIXELS = 16_000_000


def run(payload: ImageProcessingPayload, context: Context) -> Output:
    """The processed image's bytes, or the batch's ZIP (see `image_batch.run_batch`).

    info of an image: width, height, channels, format, input_format, input_width, input_height.
    Raises: InputFault when `image` is no intact image or too large, or an operation does not go with it.
    """
    open_library(context.cores)
    if payload.format:
        check_writer(payload.format)
    steps = payload.steps
    marks = _marks(steps, context)

    def one(data: Any, field: str, part: Context) -> Done:
        return _process(part.read(data, field), field, payload, (steps, marks), part)

    if payload.images is not None:
        return run_batch(payload, context, one)
    done = one(payload.image, "image", context)
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
    """The images that watermarks lay over, decoded. Raises: InputFault naming the operation's field."""
    decoded: dict[str, Image] = {}
    room = MAX_MARK_PIXELS
    for prefix, file in watermark_images(steps).items():
        field = f"{prefix}image"
        data = context.read(file, field)
        header = read_header(data, field)
        room -= header.width * header.height
        if room < 0:
            most = MAX_MARK_PIXELS // 1_000_000
            raise InputFault(field, f"is too large: a task's watermarks have at most {most} million pixels together")
        decoded[prefix] = decode(data, field)[0]
    return decoded
