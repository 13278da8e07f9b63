"""The table of operations, and their application to an image in sequence."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.kinds.image_operations import Edges, Grayscale, Resize, Step, Threshold, Watermark
from mesh.kinds.image_sizes import Misfit, Size, placing
from node.executor.context import CertainFailure, Context, InputFault
from node.workloads.common.progress_ticker import ticking
from node.workloads.image import colours, filters, geometry
from node.workloads.image.alpha import flattened
from node.workloads.image.pixels import channels, size_of
from node.workloads.image.watermark import watermark

if TYPE_CHECKING:
    from mesh.kinds.base import BlobInput
    from node.workloads.image.pixels import Image

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "resize": geometry.resize,
    "crop": geometry.crop,
    "rotate": geometry.rotate,
    "flip": geometry.flip,
    "blur": filters.blur,
    "sharpen": filters.sharpen,
    "edges": filters.edges,
    "threshold": filters.threshold,
    "denoise": filters.denoise,
    "colour": colours.colour,
    "color": colours.colour,
    "grayscale": colours.grayscale,
    "greyscale": colours.grayscale,
    "sepia": colours.sepia,
    "invert": colours.invert,
    "equalise": colours.equalise,
    "equalize": colours.equalise,
}
#: For images with more pixels, a thread reports the progress of each operation.
_LARGE = 1_000_000
#: Images with at least as many pixels are shrunk before their colours are converted.
LATE_PIXELS = 4_000_000

Steps = tuple[tuple[str, Step], ...]
"""(prefix of a step's fields in the payload, the step)"""


@dataclass(frozen=True)
class Work:
    """What is done to the pixels of each image of a task."""

    steps: Steps
    marks: Mapping[str, Image]
    """Prefix of a watermark's step -> its decoded image."""
    background: str
    """The colour under transparent pixels where an operation drops alpha, #rrggbb."""


def apply_all(image: Image, work: Work, context: Context, convert: Callable[[Image], Image]) -> Image:
    """Apply the steps in order. The last of the equal parts of the progress is left for encoding.

    `convert` (the colours to sRGB) comes first, or after a first step that leaves fewer pixels to convert.
    Raises: InputFault, MemoryError.
    """
    steps, marks = work.steps, work.marks
    is_late = bool(steps) and converts_after(steps[0][1], size_of(image))
    image = image if is_late else convert(image)
    for index, (prefix, step) in enumerate(steps):
        begin, end = index / (len(steps) + 1), (index + 1) / (len(steps) + 1)
        width, height = size_of(image)
        watched = ticking(context, step.op, begin, end) if width * height > _LARGE else nullcontext()
        with watched, faults(prefix):
            if isinstance(step, Watermark):
                image = watermark(image, step, marks.get(prefix))
            else:
                image = OPERATIONS[step.op](*_prepared(image, step, work.background))
        image = convert(image) if is_late and index == 0 else image
        context.progress(end, step.op)
    return image


def converts_after(step: Step, size: Size) -> bool:
    """Whether colours are converted after this first step: a resize of a large image to half its pixels or less (pure).

    Converting 12 million pixels takes 250 ms of CPU time, three times the rest of a resize. The results differ where
    colours outside of sRGB, which are clipped, are mixed with others.
    """
    if not isinstance(step, Resize) or step.fit == "pad" or size[0] * size[1] < LATE_PIXELS:
        return False
    new = placing(size, step).scaled
    return 2 * new[0] * new[1] <= size[0] * size[1]


def _prepared(image: Image, step: Step, background: str) -> tuple[Image, Step]:
    """(the image without alpha for an operation that drops it, the step with the task's colour for bars)"""
    if isinstance(step, (Edges, Threshold, Grayscale)):
        return flattened(image, background), step
    if isinstance(step, Resize) and step.fit == "pad" and step.fill is None and channels(image) < 4:
        return image, step.model_copy(update={"fill": background})
    return image, step


@contextmanager
def faults(prefix: str) -> Generator[None, None, None]:
    """Translate the errors of an operation. Raises: InputFault for a Misfit; MemoryError; else CertainFailure."""
    import cv2

    try:
        yield
    except Misfit as error:
        raise InputFault(prefix + error.field, error.problem) from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from None
        raise CertainFailure(f"OpenCV refuses this: {error.err or error}") from error


def watermark_images(steps: Iterable[tuple[str, Step]]) -> dict[str, BlobInput | bytes]:
    """Prefix of a watermark's step -> its image file, for all watermarks that have one."""
    return {prefix: step.image for prefix, step in steps if isinstance(step, Watermark) and step.image is not None}
