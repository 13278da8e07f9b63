"""image_processing: decodes images to upright pixels in sRGB, processes them with OpenCV, and encodes the results.

Alpha is laid over `background`, and 16-bit samples lose their lower half, where the output format or an operation does
not support them. The result's info says what became of frames, colours and metadata.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mesh.kinds.image_operations import Sepia
from mesh.kinds.image_processing import READ_ONLY, ImageProcessingPayload
from mesh.kinds.image_sizes import Misfit, after_all, check_format
from node.executor.context import Context, InputFault, Output
from node.workloads.image.alpha import flattened
from node.workloads.image.batch import Done, run_batch
from node.workloads.image.colour_spaces import in_space
from node.workloads.image.files import Decoded, Keep, check_writer, decode, encode, in_srgb, open_library
from node.workloads.image.header import Header, read_header
from node.workloads.image.metadata import HOLDS, embed
from node.workloads.image.operations import Steps, Work, apply_all, faults, watermark_images
from node.workloads.image.pixels import channels, size_of
from node.workloads.image.watermark import check_texts

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image

#: Maximum pixels of all watermarks of a task, which stay in memory while its images are processed.
MAX_MARK_PIXELS = 16_000_000
#: Formats that have no alpha, and formats whose gray images can have a profile of gray.
NO_ALPHA = frozenset({"jpeg"})
GRAY_PROFILES = frozenset({"jpeg", "png", "tiff"})


def run(payload: ImageProcessingPayload, context: Context) -> Output:
    """The processed image, or the ZIP of the batch (see `batch.run_batch`).

    info of an image: width, height, channels, format, input_format, input_width, input_height (as stored), frames and
    kept (of them), orientation (applied, 1 to 8), colour and profile (see `files.Decoded`), metadata_kept,
    metadata_dropped.
    Raises: InputFault when `image` is damaged, unsupported or too large, or an operation does not fit it.
    """
    open_library(context.cores)
    if payload.format:
        check_writer(payload.format)
    steps = payload.steps
    check_texts(steps)
    work = Work(steps, _marks(steps, context), payload.background)

    def process(data: Any, field: str, part: Context) -> Done:
        return _process(part.read(data, field), field, payload, work, part)

    if payload.images is not None:
        return run_batch(payload, context, process)
    done = process(payload.image, "image", context)
    return Output(done.data, f"image/{done.format}", done.info)


def _process(data: bytes, field: str, payload: ImageProcessingPayload, work: Work, context: Context) -> Done:
    decoded = _decode(data, field, payload, work.steps)
    del data
    name = _output_format(payload, decoded.header)
    try:
        check_format(after_all(decoded.size, work.steps), name)
    except Misfit as error:
        raise InputFault(error.field, error.problem) from None
    state = decoded.colour

    def convert(pixels: Image) -> Image:
        nonlocal state
        done, state = in_srgb(pixels, decoded)
        return done

    image = apply_all(decoded.image, work, context, convert)
    if name in NO_ALPHA:
        image = flattened(image, payload.background)
    extra, kept, dropped = embed(decoded.metadata, size_of(image), name, payload.metadata == "keep")
    if decoded.colour == "kept" and decoded.profile is not None:
        image = in_space(image, decoded.profile.space)
        extra = replace(extra, profile=decoded.profile.data)
    with faults(""):
        encoded = encode(image, name, payload.quality, extra)
    width, height = size_of(image)
    info = {
        "width": width,
        "height": height,
        "channels": channels(image),
        "format": name,
        "input_format": decoded.header.format,
        "input_width": decoded.header.width,
        "input_height": decoded.header.height,
        "frames": decoded.frames,
        "kept": 1,
        "orientation": decoded.orientation,
        "colour": state,
        "profile": decoded.profile.name if decoded.profile is not None else "",
        "metadata_kept": kept,
        "metadata_dropped": dropped,
    }
    return Done(encoded, name, info)


def _output_format(payload: ImageProcessingPayload, header: Header) -> str:
    return payload.format or READ_ONLY.get(header.format, header.format)


def _decode(data: bytes, field: str, payload: ImageProcessingPayload, steps: Steps) -> Decoded:
    """The decoded image, in its own colours where they are to be kept and the result can hold their profile."""
    name = _output_format(payload, read_header(data, field))
    keeps = payload.colour == "keep" and name in HOLDS["profile"]
    keep = Keep(keeps, keeps and name in GRAY_PROFILES and not any(isinstance(step, Sepia) for _, step in steps))
    return decode(data, field, keep)


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
        found = decode(data, field)
        decoded[prefix] = in_srgb(found.image, found)[0]
    return decoded
